"""Images of one's own, from tensors, arrays or a torch data set, as the data set `arrays` has them.

They are kept as uint8, since all images are: floating point images are taken to go from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from search_spaces.errors import UserError
from trainables.data.image_file import flattened

COLOURS = (1, 3)


def own_arrays(dataset: Any, test: Any = None) -> dict[str, np.ndarray]:
    """Return the arrays of a data set: `images`, `labels`, `class_names`, and those of a test part.

    Args:
        dataset: A pair of images and their classes, or a torch data set of such pairs (anything
            with a length that can be indexed). Images are tensors (C, H, W), arrays (C, H, W),
            (H, W, C) or (H, W), or images of Pillow, all of one size: uint8, or from 0 to 1.
            Images of Pillow are put on white where they are transparent, and not turned. Classes
            are whole numbers from 0. The names of the classes are its `classes`, if it has
            that.
        test: The same for the test part; None if it is to be held out.

    Raises:
        UserError: There are no images, or they or their classes are something else.
    """
    images, labels = _part(dataset, "dataset")
    content = {"images": images, "labels": labels}
    every = labels
    if test is not None:
        content["test_images"], content["test_labels"] = _part(test, "test")
        every = np.concatenate([labels, content["test_labels"]])
    names = getattr(dataset, "classes", None) or range(int(every.max()) + 1)
    if int(every.max()) >= len(names):
        raise UserError(
            f"labels are out of range: the highest is {every.max()}, and the data set has "
            f"{len(names)} classes, 0 to {len(names) - 1}"
        )
    return {**content, "class_names": np.array([str(name) for name in names])}


def _part(dataset: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(dataset, (tuple, list)) and len(dataset) == 2:
        images, labels = dataset
        if not isinstance(images, (torch.Tensor, np.ndarray)):
            images = _stack([_channels_first(_array(image)) for image in images], what)
        else:
            images = _channels_first(_array(images), of_one=False)
    elif hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        pairs = [_pair(dataset[i], i, what) for i in range(len(dataset))]
        images = _stack([_channels_first(_array(image)) for image, _ in pairs], what)
        labels = [label for _, label in pairs]
    else:
        raise UserError(
            f"{what} is a {type(dataset).__name__}: give the name of a data set, a pair of images "
            f"and classes, or a torch data set of such pairs"
        )
    if not len(images):
        raise UserError(f"{what} has no images")
    return _as_bytes(images, what), _as_classes(labels, len(images), what)


def _pair(item: Any, index: int, what: str) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise UserError(f"{what}[{index}] is no pair of an image and its class")
    return item[0], item[1]


def _array(value: Any) -> Any:
    """Return a tensor as it is, and anything else as an array."""
    if isinstance(value, Image.Image):
        if value.mode in ("I", "F") or value.mode.startswith("I;"):
            return np.asarray(value)  # `convert` would cut off what exceeds 8 bits
        plain = value.mode == "L" and not value.has_transparency_data
        return np.array(value if plain else flattened(value))
    return value if isinstance(value, torch.Tensor) else np.asarray(value)


def _channels_first(value: Any, *, of_one: bool = True) -> np.ndarray:
    """Return an image as (C, H, W), or images as (N, C, H, W)."""
    last_is_colour = isinstance(value, np.ndarray)  # a tensor's never are
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
    dimensions = array.ndim + of_one
    if dimensions == 3:
        return np.expand_dims(array, -3)
    if dimensions == 4 and array.shape[-3] in COLOURS:
        return array
    if dimensions == 4 and last_is_colour and array.shape[-1] in COLOURS:
        return np.moveaxis(array, -1, -3)
    return array


def _stack(images: Sequence[np.ndarray], what: str) -> np.ndarray:
    shapes = {image.shape: i for i, image in reversed([*enumerate(images)])}
    if len(shapes) > 1:
        (one, i), (other, j), *_ = sorted(shapes.items(), key=lambda entry: entry[1])
        raise UserError(
            f"{what}[{i}] is {one} and {what}[{j}] is {other}: make all images of one size, such "
            f"as by torchvision.transforms.Resize"
        )
    return np.stack(images) if images else np.zeros((0, 1, 1, 1), np.uint8)


def _as_bytes(images: np.ndarray, what: str) -> np.ndarray:
    if images.ndim != 4 or images.dtype.kind not in "uif":
        raise UserError(
            f"images of {what} are {images.dtype} {images.shape}, expected (N, C, H, W) of numbers"
        )
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    low, high = images.min(), images.max()
    highest, remedy = 255, "scale them by the range of their type"
    if images.dtype.kind == "f":
        highest = 1
        remedy = "give them before they are normalised, and what the network expects as "
        remedy += "normalisation=(mean, std)"
    if not (low >= 0 and high <= highest):  # also if one is not a number
        raise UserError(
            f"images of {what} go from {low:g} to {high:g}, expected 0 to {highest}: {remedy}"
        )
    return (images * (255 / highest)).round().astype(np.uint8)


def _as_classes(labels: Any, count: int, what: str) -> np.ndarray:
    classes = _array(labels)
    if isinstance(classes, torch.Tensor):
        classes = classes.detach().cpu().numpy()
    if classes.shape != (count,) or classes.dtype.kind not in "iu":
        raise UserError(
            f"classes of {what} are {classes.dtype} {classes.shape}, expected whole numbers "
            f"({count},), one for each image"
        )
    if classes.min() < 0:
        raise UserError(f"labels are out of range: the lowest is {classes.min()}, expected 0")
    return classes.astype(np.int64)
