"""Images of one's own in the forms that users have them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from search_spaces.errors import UserError
from trainables.data.arrays import read_arrays
from trainables.data.own_images import own_arrays

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 5), dtype=np.uint8)
LABELS = [0, 2, 1, 0, 2, 1]
GREY = IMAGES[:, :1]


class Pairs(Dataset):
    def __init__(self, images, labels=LABELS, classes=None):
        self.images, self.labels = images, labels
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


def pillows(images):
    return [Image.fromarray(np.moveaxis(image, 0, -1).squeeze()) for image in images]


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ((IMAGES, LABELS), IMAGES),
        ((torch.from_numpy(IMAGES), torch.tensor(LABELS)), IMAGES),
        ((torch.from_numpy(IMAGES) / 255, torch.tensor(LABELS, dtype=torch.uint8)), IMAGES),
        ((IMAGES.astype(np.int64), np.array(LABELS)), IMAGES),
        ((IMAGES / 255, LABELS), IMAGES),
        ((np.moveaxis(IMAGES, 1, -1), LABELS), IMAGES),
        ((GREY[:, 0], LABELS), GREY),
        ((torch.from_numpy(GREY[:, 0]), LABELS), GREY),
        (([*IMAGES], LABELS), IMAGES),
        ((pillows(IMAGES), LABELS), IMAGES),
        (Pairs(pillows(IMAGES)), IMAGES),
        (Pairs(pillows(GREY)), GREY),
        (Pairs([np.moveaxis(image, 0, -1) for image in IMAGES]), IMAGES),
        (TensorDataset(torch.from_numpy(IMAGES) / 255, torch.tensor(LABELS)), IMAGES),
        (Pairs([image.convert("RGBA") for image in pillows(IMAGES)]), IMAGES),
        ([(torch.from_numpy(i), label) for i, label in zip(IMAGES, LABELS, strict=True)], IMAGES),
    ],
)
def test_every_form_gives_the_same_arrays(dataset, expected):
    content = own_arrays(dataset)
    assert content["images"].dtype == np.uint8
    assert np.array_equal(content["images"], expected)
    assert content["labels"].tolist() == LABELS
    assert read_arrays(content, "mine").class_names == ("0", "1", "2")


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_images_of_pillow_with_more_than_8_bits_are_not_cut_off(dtype):
    low = GREY[:, 0].astype(dtype) / (1 if dtype != np.float32 else dtype(255))
    images = [Image.fromarray(image.astype(dtype)) for image in low]
    assert np.array_equal(own_arrays((images, LABELS))["images"], GREY)
    high = [Image.fromarray((16 * image + 2).astype(dtype)) for image in low]
    with pytest.raises(UserError, match=r"images of dataset go from .*, expected 0 to (1|255): "):
        own_arrays((high, LABELS))


def test_images_of_pillow_are_white_where_they_are_transparent():
    clear = [Image.fromarray(np.moveaxis(i, 0, -1)) for i in IMAGES]
    for image in clear:
        image.putalpha(0)
    assert (own_arrays((clear, LABELS))["images"] == 255).all()
    palettes = [image.convert("P") for image in pillows(GREY)]
    for image in palettes:
        image.info["transparency"] = bytes(256)
    assert (own_arrays((palettes, LABELS))["images"] == 255).all()


def test_classes_have_their_names_and_the_test_part_counts():
    named = Pairs(IMAGES, classes=["cat", "dog", "owl", "rat"])
    content = own_arrays(named, (IMAGES[:2], [3, 0]))
    assert content["class_names"].tolist() == ["cat", "dog", "owl", "rat"]
    data = read_arrays(content, "mine")
    assert data.test.labels.tolist() == [3, 0]
    assert own_arrays((IMAGES, LABELS), (IMAGES[:1], [4]))["class_names"].tolist() == [*"01234"]
    with pytest.raises(UserError, match="the highest is 2, and the data set has 2 classes, 0 to 1"):
        own_arrays(Pairs(IMAGES, classes=["cat", "dog"]))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (7, "dataset is a int"),
        (object(), "dataset is a object"),
        ((IMAGES[:0], []), "has no images"),
        (Pairs([]), "has no images"),
        ([1, 2, 3], r"dataset\[0\] is no pair"),
        ((IMAGES / 255 - 0.5, LABELS), "before they are normalised"),
        ((torch.full((6, 1, 4, 4), float("nan")), LABELS), "expected 0 to 1"),
        ((IMAGES.astype(int) + 1, LABELS), "from 1 to 256, expected 0 to 255"),
        ((IMAGES.astype("complex"), LABELS), r"complex128 \(6, 3, 4, 5\)"),
        ((IMAGES[0, 0], LABELS), r"expected \(N, C, H, W\)"),
        (Pairs([*IMAGES[:5], IMAGES[5][:, :2]]), r"dataset\[5\] is \(3, 2, 5\)"),
        ((IMAGES, LABELS[:5]), r"expected whole numbers \(6,\)"),
        ((IMAGES, [0.0] * 6), "float64"),
        ((IMAGES, [*"abcabc"]), "expected whole numbers"),
        ((IMAGES, np.eye(6, dtype=int)), r"int64 \(6, 6\)"),
        ((IMAGES, [-1] * 6), "the lowest is -1"),
    ],
)
def test_what_is_no_data_set_is_named(dataset, message):
    with pytest.raises(UserError, match=message):
        own_arrays(dataset)
