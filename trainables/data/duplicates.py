"""Images that are in a data set more than once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from torch import Tensor

from trainables.data.dataset import ImageData
from trainables.data.splits import Splits


def duplicate_notes(data: ImageData, splits: Splits) -> tuple[str, ...]:
    """Return one sentence with a count for each kind of duplicates between parts.

    Two images are the same if all their pixels are: those of files with the same bytes, and also of
    files in different formats without loss.

    Args:
        data: Data set.
        splits: Its splits.
    """
    development = _digests(data.images)
    official = _digests(data.test.images) if data.test is not None else development
    test = splits.test.tolist()
    held_out = set() if data.test is not None else set(test)
    outside = {digest for i, digest in enumerate(development) if i not in held_out}
    train = {development[i] for i in splits.train.tolist()}
    validation = [development[i] for i in splits.validation.tolist()]
    counts = {
        "test images have the pixels of an image outside of the test part, so accuracy on them is "
        "not that on unseen images": [official[i] in outside for i in test],
        "validation images have the pixels of a training image": [d in train for d in validation],
    }
    notes = [
        f"duplicates: {sum(same):,} of {len(same):,} {what}"
        for what, same in counts.items()
        if any(same)
    ]
    labels: dict[bytes, set[int]] = {}
    every = [*zip(development, data.labels.tolist(), strict=True)]
    if data.test is not None:
        every += zip(official, data.test.labels.tolist(), strict=True)
    for digest, label in every:
        labels.setdefault(digest, set()).add(label)
    if ambiguous := sum(len(labels[digest]) > 1 for digest, _ in every):
        notes.append(
            f"duplicates: {ambiguous:,} of {len(every):,} images have the pixels of an image of "
            f"another class"
        )
    return tuple(notes)


def _digests(images: Tensor) -> list[bytes]:
    rows: Iterable[memoryview] = images.cpu().contiguous().flatten(1).numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]
