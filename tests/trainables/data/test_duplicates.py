"""Images that are in several parts, or in several classes."""

import shutil

import pytest
import torch

from tests.trainables.data.image_writers import random_image, write_image
from trainables.data import ImageData, LabelledImages, load_dataset, make_splits
from trainables.data.augment import Augmentation
from trainables.data.duplicates import duplicate_notes


def data_of(images, labels, test=None):
    return ImageData(
        images,
        labels,
        ("a", "b", "c"),
        test and LabelledImages(*test),
        name="made up",
        augmentation=Augmentation(),
    )


def counts(data, splits):
    """Compare every pair of images."""
    test = data.test if data.test is not None else data

    def same(a, b):
        return bool((a == b).all())

    pool = set(range(len(data))) - (set(splits.test.tolist()) if data.test is None else set())
    tested = sum(any(same(test.images[i], data.images[j]) for j in pool) for i in splits.test)
    validated = sum(
        any(same(data.images[i], data.images[j]) for j in splits.train) for i in splits.validation
    )
    parts = [data] if data.test is None else [data, data.test]
    every = [(image, int(label)) for p in parts for image, label in zip(p.images, p.labels)]  # noqa: B905
    ambiguous = sum(any(same(a, b) and k != m for b, m in every) for a, k in every)
    return [tested, validated, ambiguous]


@pytest.mark.parametrize("official", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_comparing_every_pair(official, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(count):
        # 3 binary pixels: 8 different images.
        images = torch.randint(2, (count, 1, 1, 3), dtype=torch.uint8, generator=generator)
        scale = 1 if seed else torch.arange(1, count + 1, dtype=torch.uint8).view(-1, 1, 1, 1)
        return images * scale, torch.randint(3, (count,), generator=generator)

    data = data_of(*draw(30), test=draw(9) if official else None)
    splits = make_splits(data, 0, 12, 5)
    expected = counts(data, splits)
    found = [int(note.split()[1]) for note in duplicate_notes(data, splits)]
    assert found == [count for count in expected if count]
    assert seed == 0 or len(found) == 3


def test_a_set_without_duplicates_has_no_note():
    images = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1)
    data = data_of(images, torch.arange(30) % 3)
    assert duplicate_notes(data, make_splits(data, 0)) == ()


def test_copied_files_are_told_with_a_count(tmp_path):
    for seed in range(8):
        write_image(tmp_path / f"train/{'ab'[seed % 2]}/{seed}.png", random_image(seed))
    for seed in range(100, 103):
        write_image(tmp_path / f"test/a/{seed}.png", random_image(seed))
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a/copy.png")
    write_image(tmp_path / "test/a/lossless.tif", random_image(2))
    data = load_dataset("imagefolder", tmp_path, image_size=8)
    (note,) = duplicate_notes(data, make_splits(data, 0))
    assert note == (
        "duplicates: 2 of 5 test images have the pixels of an image outside of the test part, so "
        "accuracy on them is not that on unseen images"
    )
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "train/b/copy.png")
    data = load_dataset("imagefolder", tmp_path, image_size=8)
    last = duplicate_notes(data, make_splits(data, 0))[-1]
    assert last == "duplicates: 3 of 14 images have the pixels of an image of another class"
