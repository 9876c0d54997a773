"""Images of one's own in a file of arrays, and what is said of a file that is none."""

import numpy as np
import pytest
import torch

from search_spaces.errors import UserError
from trainables.data import load_dataset


@pytest.fixture
def content():
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (7, 3, 5, 4), dtype=np.uint8),
        "labels": np.array([0, 2, 1, 1, 0, 2, 1]),
    }


@pytest.fixture
def load(tmp_path):
    def load(content):
        np.savez(tmp_path / "images.npz", **content)
        return load_dataset("arrays", tmp_path)

    return load


def test_a_file_holds_images_classes_and_what_it_is_tested_on(content, load):
    data = load(content)
    assert torch.equal(data.images, torch.from_numpy(content["images"]))
    assert data.labels.tolist() == content["labels"].tolist()
    assert data.class_names == ("0", "1", "2")
    assert data.test is None
    more = {"test_images": content["images"][:2], "test_labels": np.array([3, 0], np.uint8)}
    tested = load(content | more)
    assert tested.num_classes == 4
    assert tested.test.labels.tolist() == [3, 0]
    assert torch.equal(tested.test.images, data.images[:2])
    assert load(content | {"class_names": np.array(["a", "b", "c"])}).class_names == ("a", "b", "c")


def test_a_file_may_have_another_name(content, tmp_path):
    np.savez(tmp_path / "mine.npz", **content)
    assert len(load_dataset("arrays", tmp_path, file="mine.npz")) == 7
    with pytest.raises(UserError, match=r"images\.npz; give a folder"):
        load_dataset("arrays", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "has no array 'images', but labels"),
        ({"labels": None}, "has no array 'labels'"),
        ({"test_images": np.zeros((1, 3, 5, 4), np.uint8)}, "has no array 'test_labels'"),
        ({"images": np.zeros((7, 3, 5, 4), np.float32)}, r"must be uint8 \(N, C, H, W\)"),
        ({"images": np.zeros((7, 5, 4), np.uint8)}, r"must be uint8 \(N, C, H, W\)"),
        ({"labels": np.zeros(6, int)}, r"whole numbers \(7,\)"),
        ({"labels": np.zeros(7)}, "whole numbers"),
        ({"labels": np.full(7, -1)}, "go from -1 to -1"),
        ({"class_names": np.array(["a", "b"])}, "from 0 to 2, expected 0 to 1"),
        ({"images": np.zeros((0, 3, 5, 4), np.uint8), "labels": np.zeros(0, int)}, "no images"),
        ({"images": np.array([None] * 7)}, "Object arrays cannot be loaded"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(content, load, change, message):
    changed = {k: v for k, v in (content | change).items() if v is not None}
    with pytest.raises(UserError, match=message):
        load(changed)


@pytest.mark.parametrize("garbage", [b"", b"nothing", b"PK\x03\x04 broken"])
def test_a_file_of_another_kind_is_refused(garbage, tmp_path):
    (tmp_path / "images.npz").write_bytes(garbage)
    with pytest.raises(UserError, match=r"is no \.npz file of arrays"):
        load_dataset("arrays", tmp_path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"is no \.npz file of arrays"):
        load_dataset("arrays", tmp_path, file="one.npy")
