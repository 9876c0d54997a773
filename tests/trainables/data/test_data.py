"""Loading: every source from files in its real format, and the errors a user meets."""

import gzip
import hashlib
import inspect
import os
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from search_spaces.errors import UserError
from trainables.data import RawData, datasets, fashion_mnist, imagefolder, load_dataset
from trainables.data.registry import register_dataset

REAL_ROOT = os.environ.get("SASE_DATA")


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("SASE_DATA", raising=False)


@pytest.fixture
def no_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "no-debian")


# The catalogue


def test_catalogue_has_the_documented_sets():
    rows = {row.name: row for row in datasets()}
    expected = ["digits", "fashion_mnist", "cluttered_fashion_mnist", "cifar10", "cifar100"]
    assert {*expected, "imagefolder"} <= rows.keys()
    assert all(row.source and row.summary for row in rows.values())
    assert not rows["digits"].augmentation.flip
    assert rows["cifar10"].augmentation.flip
    assert rows["cifar10"].augmentation.padding == 4


@pytest.mark.parametrize("row", datasets(), ids=lambda row: row.name)
def test_a_set_loads_or_says_where_it_was_looked_for(row, no_debian, tmp_path):
    root, *options = inspect.signature(row.loader).parameters.values()
    assert root.name == "root"
    assert all(option.default is not inspect.Parameter.empty for option in options)
    try:
        data = load_dataset(row.name, tmp_path)
    except UserError as error:
        refusal = str(error)
    else:
        assert data.name == row.name
        return
    assert str(tmp_path) in refusal
    assert re.search("give|have|put", refusal)


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        load_dataset("cifar-10")


def test_unknown_option_gets_the_nearest(tmp_path):
    with pytest.raises(UserError, match="did you mean 'image_size'"):
        load_dataset("imagefolder", tmp_path, imagesize=3)
    with pytest.raises(UserError, match="'digits' takes no options: leave out 'download'"):
        load_dataset("digits", download=True)


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(UserError, match="'digits' is already registered"):

        @register_dataset("digits", source="mine", summary="other digits")
        def other(root: Path | None) -> RawData: ...


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 3, 3), torch.zeros(2).long(), "uint8 tensor"),
        (torch.zeros(2, 3, 3).byte(), torch.zeros(2).long(), "uint8 tensor"),
        (torch.zeros(2, 1, 3, 3).byte(), torch.zeros(3).long(), "one for each image"),
        (torch.zeros(2, 1, 3, 3).byte(), torch.tensor([0, 2]), "from 0 to 2, expected 0 to 1"),
        (torch.zeros(0, 1, 3, 3).byte(), torch.zeros(0).long(), "has no images"),
    ],
)
def test_a_loader_that_returns_nonsense_is_told(images, labels, message):
    with pytest.raises(UserError, match=message):
        RawData(images, labels, ("a", "b"))


# digits


def test_digits_are_scikit_learns_scaled_exactly():
    data, source = load_dataset("digits"), load_digits()
    assert data.images.shape == (1797, 1, 8, 8)
    assert data.num_classes == 10
    assert data.test is None
    for image, pixels in zip(data.images[::97], source.images[::97], strict=True):
        assert image[0].tolist() == [[round(v * 255 / 16) for v in row] for row in pixels]
    assert data.labels.tolist() == source.target.tolist()


# Fashion-MNIST


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_fashion_mnist(folder: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 50), ("t10k", 20)):
        arrays[part] = rng.integers(0, 256, (count, 28, 28))
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", arrays[part])
        arrays[f"{part}-labels"] = np.arange(count) % 10
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", arrays[f"{part}-labels"])
    return arrays


@pytest.mark.parametrize("inside", ["fashion_mnist", "FashionMNIST/raw", "."])
@pytest.mark.parametrize("by", ["root", "environment"])
def test_idx_files_are_found_and_read(tmp_path, monkeypatch, no_debian, inside, by):
    arrays = write_fashion_mnist(tmp_path / inside)
    if by == "environment":
        monkeypatch.setenv("SASE_DATA", str(tmp_path))
    data = load_dataset("fashion_mnist", tmp_path if by == "root" else None)
    assert data.images.shape == (50, 1, 28, 28)
    assert np.array_equal(data.images[:, 0], arrays["train"])
    assert np.array_equal(data.labels, arrays["train-labels"])
    assert np.array_equal(data.test.images[:, 0], arrays["t10k"])
    assert np.array_equal(data.test.labels, arrays["t10k-labels"])


def test_debians_folder_is_used_when_root_has_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    write_fashion_mnist(tmp_path / "debian")
    assert len(load_dataset("fashion_mnist", tmp_path)) == 50


def test_missing_fashion_mnist_says_where_and_how(tmp_path, no_debian):
    with pytest.raises(UserError) as error:
        load_dataset("fashion_mnist", tmp_path)
    message = str(error.value)
    for part in (
        f"{tmp_path / 'fashion_mnist'},",
        f"{tmp_path / 'FashionMNIST' / 'raw'},",
        f"{tmp_path},",
        str(tmp_path / "no-debian"),
        "$SASE_DATA",
        "dataset-fashion-mnist",
        "data.options.download=true",
        "train-images-idx3-ubyte.gz",
    ):
        assert part in message
    assert "\n" not in message


def truncate_compressed(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def truncate_content(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(gzip.compress(b""))


def no_gzip(path: Path) -> None:
    path.write_text("<html>not found</html>")


@pytest.mark.parametrize(
    "damage", [truncate_compressed, truncate_content, flip_a_bit, empty, no_gzip]
)
def test_damaged_idx_file_is_named(tmp_path, damage):
    write_fashion_mnist(tmp_path)
    damage(tmp_path / "train-images-idx3-ubyte.gz")
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz .*get it again"):
        load_dataset("fashion_mnist", tmp_path)


def test_idx_files_that_do_not_belong_together(tmp_path):
    write_fashion_mnist(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(19))
    with pytest.raises(UserError, match=r"20 images but .* 19 labels"):
        load_dataset("fashion_mnist", tmp_path)


def test_idx_file_of_another_kind(tmp_path):
    write_fashion_mnist(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros(50))
    with pytest.raises(UserError, match=r"not an idx file .* 3 dimensions"):
        load_dataset("fashion_mnist", tmp_path)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar100"])
def test_failed_download_is_one_sentence(tmp_path, monkeypatch, no_debian, name):
    import torchvision.datasets.utils as utils

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "_urlretrieve", refuse)
    with pytest.raises(UserError, match=f"'{name}' could not be downloaded to {tmp_path}"):
        load_dataset(name, tmp_path, download=True)
    with pytest.raises(UserError, match="give root or set \\$SASE_DATA"):
        load_dataset(name, download=True)


def test_real_fashion_mnist():
    try:
        data = load_dataset("fashion_mnist", REAL_ROOT)
    except UserError as error:
        pytest.skip(str(error))
    assert data.images.shape == (60000, 1, 28, 28)
    assert data.test.images.shape == (10000, 1, 28, 28)
    assert torch.bincount(data.labels).tolist() == [6000] * 10
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.class_names[data.labels[0]] == "ankle boot"
    # The mean that is published everywhere for the training images.
    assert data.images.double().mean().item() / 255 == pytest.approx(0.2860, abs=5e-5)


# CIFAR


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 strings, as in the real files."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)

    dispatch[str] = save_string
    dispatch[bytes] = save_string


def write_pickle(path: Path, content: dict, python: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        (Python2Pickler if python == 2 else pickle.Pickler)(stream, protocol=2).dump(content)
    if python == 2:
        raw = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        path.write_bytes(raw)


def write_cifar(root: Path, name: str, python: int = 2, per_file: int = 20):
    """Write a small CIFAR in its own layout; return the images and labels, (train, test)."""
    if name == "cifar10":
        folder, key, classes = root / "cifar-10-batches-py", "labels", 10
        files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
        meta, meta_key = "batches.meta", "label_names"
    else:
        folder, key, classes = root / "cifar-100-python", "fine_labels", 100
        files, meta, meta_key = ["train", "test"], "meta", "fine_label_names"
    rng = np.random.default_rng(1)
    written = []
    for file in files:
        pixels = rng.integers(0, 256, (per_file, 3072)).astype(np.uint8)
        labels = [int(label) for label in rng.integers(0, classes, per_file)]
        content = {"batch_label": file, key: labels, "data": pixels, "filenames": ["x.png"]}
        write_pickle(folder / file, content, python)
        written.append((pixels, labels))
    write_pickle(folder / meta, {meta_key: [f"class {i}" for i in range(classes)]}, python)
    return folder, written


@pytest.mark.parametrize("python", [2, 3])
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_files_are_read(tmp_path, name, classes, python):
    _, written = write_cifar(tmp_path, name, python)
    data = load_dataset(name, tmp_path)
    *train, (test_pixels, test_labels) = written
    assert data.num_classes == classes
    assert data.class_names[1] == "class 1"
    assert data.labels.tolist() == [label for _, labels in train for label in labels]
    assert data.test.labels.tolist() == test_labels
    assert data.images.shape == (20 * len(train), 3, 32, 32)
    # A row holds the red plane, then green, then blue, each row by row.
    pixels = np.concatenate([pixels for pixels, _ in train])
    assert data.images[7, 1, 2, 3] == pixels[7, 1024 + 2 * 32 + 3]
    assert data.test.images[5, 2, 31, 0] == test_pixels[5, 2048 + 31 * 32]


def test_cifar_agrees_with_torchvision_once_it_accepts_the_files(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder, _ = write_cifar(tmp_path, "cifar10")

    def with_md5(entries: list[list[str]]) -> list[list[str]]:
        return [[f, hashlib.md5((folder / f).read_bytes()).hexdigest()] for f, _ in entries]

    monkeypatch.setattr(CIFAR10, "train_list", with_md5(CIFAR10.train_list))
    monkeypatch.setattr(CIFAR10, "test_list", with_md5(CIFAR10.test_list))
    meta_md5 = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta_md5})
    theirs = CIFAR10(str(tmp_path))
    ours = load_dataset("cifar10", tmp_path)
    assert np.array_equal(ours.images.permute(0, 2, 3, 1), theirs.data)
    assert ours.labels.tolist() == theirs.targets
    assert list(ours.class_names) == theirs.classes


def test_cifar_is_also_found_in_a_folder_of_its_name(tmp_path):
    write_cifar(tmp_path / "cifar100", "cifar100")
    assert load_dataset("cifar100", tmp_path).num_classes == 100


def test_missing_cifar_says_where_and_how(tmp_path):
    folder, _ = write_cifar(tmp_path, "cifar10")
    (folder / "data_batch_3").unlink()
    with pytest.raises(UserError) as error:
        load_dataset("cifar10", tmp_path)
    for part in (str(folder), "cifar-10-python.tar.gz", "$SASE_DATA", "data.options.download=true"):
        assert part in str(error.value)


class Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_cifar_file_cannot_run_code(tmp_path):
    folder, _ = write_cifar(tmp_path, "cifar10")
    write_pickle(folder / "data_batch_2", {"data": Attack(tmp_path / "ran"), "labels": []}, 3)
    with pytest.raises(UserError, match=r"data_batch_2 is not a CIFAR file .*mkdir"):
        load_dataset("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00", b"<html>", b"\x80\x02}q\x00."])
def test_damaged_cifar_file_is_named(tmp_path, content):
    folder, _ = write_cifar(tmp_path, "cifar10")
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match=r"test_batch is not a CIFAR file .*get it again"):
        load_dataset("cifar10", tmp_path)


# imagefolder


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path):
    """Two classes; a grey image, odd sizes, another suffix, a deeper folder, a stray file."""
    rng = np.random.default_rng(2)
    save(tmp_path / "train/cat/a.png", rng.integers(0, 256, (16, 16, 3)))
    save(tmp_path / "train/cat/grey.png", rng.integers(0, 256, (16, 16)))
    save(tmp_path / "train/cat/deeper/b.jpg", rng.integers(0, 256, (401, 263, 3)))
    save(tmp_path / "train/dog/wide.png", rng.integers(0, 256, (7, 31, 3)))
    save(tmp_path / "train/dog/alpha.PNG", rng.integers(0, 256, (16, 16, 4)))
    (tmp_path / "train/dog/notes.txt").write_text("not an image")
    return tmp_path


def test_tree_is_decoded(tree):
    data = load_dataset("imagefolder", tree, image_size=16)
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.images.shape == (5, 3, 16, 16)
    assert data.test is None
    exact = np.asarray(Image.open(tree / "train/cat/a.png"))
    assert np.array_equal(data.images[0].permute(1, 2, 0), exact)
    grey = np.asarray(Image.open(tree / "train/cat/grey.png"))
    assert all(np.array_equal(channel, grey) for channel in data.images[2])
    assert load_dataset("imagefolder", tree).images.shape == (5, 3, 64, 64)


@pytest.mark.parametrize("shape", [(8, 24, 3), (24, 8, 3)])
def test_crop_is_the_centre_of_the_longer_side(tree, shape):
    along = shape.index(24)
    ramp = np.arange(24)[:, None] if along == 0 else np.arange(24)[None, :]
    save(tree / "train/ant/ramp.png", np.broadcast_to(ramp[..., None], shape))
    image = load_dataset("imagefolder", tree, image_size=8).images[0, 0]
    assert image.select(1 - along, 0).tolist() == list(range(8, 16))


@pytest.mark.parametrize("parts", [["val"], ["test"], ["test", "val"]])
def test_test_or_else_val_is_the_test_part(tree, parts):
    for level, part in enumerate(parts, start=1):
        save(tree / part / "dog/x.png", np.full((9, 9), level))
    (tree / "test").mkdir(exist_ok=True)
    data = load_dataset("imagefolder", tree, image_size=4)
    assert data.test.labels.tolist() == [1]
    assert data.test.images.unique().tolist() == [1]


def test_tree_without_classes(tmp_path):
    with pytest.raises(UserError, match=rf"not found in {tmp_path / 'train'}; give a folder"):
        load_dataset("imagefolder", tmp_path)
    save(tmp_path / "train/a.png", np.zeros((4, 4)))
    with pytest.raises(UserError, match="0 class folders, expected at least 2"):
        load_dataset("imagefolder", tmp_path)


def test_class_without_images(tree):
    (tree / "train/eel").mkdir()
    with pytest.raises(UserError, match="eel has no images"):
        load_dataset("imagefolder", tree)


def test_test_part_with_a_class_of_its_own(tree):
    save(tree / "val/cow/x.png", np.zeros((4, 4)))
    with pytest.raises(UserError, match=r"cow is not a class .*cat, dog"):
        load_dataset("imagefolder", tree)


@pytest.mark.parametrize("keep", [0, 20, 700])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_corrupt_image_is_named(tree, keep, suffix):
    file = tree / f"train/cat/zz.{suffix}"
    save(file, np.random.default_rng(3).integers(0, 256, (40, 40, 3)))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"image .*zz\.{suffix} cannot be read"):
        load_dataset("imagefolder", tree)


@pytest.mark.parametrize("image_size", [0, -3])
def test_image_size_must_be_positive(tree, image_size):
    with pytest.raises(UserError, match=f"at least 1 pixel .got {image_size}"):
        load_dataset("imagefolder", tree, image_size=image_size)


def test_more_than_the_memory_is_refused_before_decoding(tree):
    with pytest.raises(UserError, match=r"5 images of .* GiB are available: choose a smaller"):
        load_dataset("imagefolder", tree, image_size=1_000_000)


def test_available_memory_heeds_the_containers_limit(tmp_path, monkeypatch):
    machine = SimpleNamespace(available=5000 * 1024)
    monkeypatch.setattr(imagefolder.psutil, "virtual_memory", lambda: machine)
    assert imagefolder.available_memory(tmp_path) == 5000 * 1024
    for file, text in {
        "max": "max",
        "current": "300000",
        "stat": "anon 5\ninactive_file 7",
    }.items():
        (tmp_path / f"memory.{file}").write_text(text + "\n")
    assert imagefolder.available_memory(tmp_path) == 5000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    assert imagefolder.available_memory(tmp_path) == 700_007


# Cluttered Fashion-MNIST


def test_clutter_holds_the_object_somewhere_in_all_channels():
    from trainables.data.cluttered import clutter

    # A single bright object among dark others: the clutter is black, so it can be found.
    images = torch.zeros(400, 1, 28, 28, dtype=torch.uint8)
    images[:200] = 255
    others = clutter(images[200:], torch.Generator().manual_seed(0))
    assert others.shape == (200, 3, 28, 28)
    noise_only = others.float() / 255
    # Noise below zero is cut off, so a channel's mean is its deviation over sqrt(2 pi).
    spread = noise_only.mean((2, 3)) * (2 * np.pi) ** 0.5
    assert 0.04 < spread.min() < 0.1
    assert 0.4 < spread.max() < 0.62
    assert spread.std(1).mean() > 0.1  # unequal within an image
    bright = clutter(images[:200], torch.Generator().manual_seed(0)).float() / 255
    # Object of 14x14 at full brightness, half of its noise cut off at 1.
    covered = (bright.amin(1) > 0.3).float().sum((1, 2))
    assert covered.min() > 0.7 * 14 * 14
    places = {tuple((image.mean(0) > 0.6).nonzero().float().mean(0).round().int().tolist())
              for image in bright}  # fmt: skip
    assert len(places) > 20


def test_clutter_follows_its_seed():
    from trainables.data.cluttered import clutter

    images = torch.randint(256, (50, 1, 28, 28), dtype=torch.uint8)
    first, again, other = (clutter(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_cluttered_set_has_the_labels_of_the_plain_one(tmp_path, no_debian):
    write_fashion_mnist(tmp_path)
    plain = load_dataset("fashion_mnist", tmp_path)
    made = load_dataset("cluttered_fashion_mnist", tmp_path)
    assert made.images.shape == (50, 3, 28, 28)
    assert made.images.dtype == torch.uint8
    assert torch.equal(made.labels, plain.labels)
    assert torch.equal(made.test.labels, plain.test.labels)
    with pytest.raises(UserError, match="option seed"):
        load_dataset("cluttered_fashion_mnist", tmp_path, seed="one")
