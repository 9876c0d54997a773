"""Which files of a tree are read, and what is said of those that are left out."""

import os

import numpy as np
import pytest
from PIL import Image

from search_spaces.errors import UserError
from tests.trainables.data.image_writers import random_image, write_image
from trainables.data import imagefolder, load_dataset
from trainables.data.image_tree import suffixes

SIZE = 8


@pytest.fixture
def tree(tmp_path):
    for seed, name in enumerate(["cat/0", "cat/1", "dog/0"]):
        write_image(tmp_path / f"train/{name}.png", random_image(seed))
    return tmp_path


def load(root):
    return load_dataset("imagefolder", root, image_size=SIZE)


JUNK = [
    "train/cat/.ipynb_checkpoints/0-checkpoint.png",
    "train/cat/.thumbnails/normal/0.png",
    "train/dog/__MACOSX/._0.png",
    "train/dog/._0.png",
    "train/cat/@eaDir/0.png/SYNOPHOTO_THUMB_XL.jpg",
    "train/cat/$RECYCLE.BIN/0.png",
    "train/cat/deeper/.git/annex/0.png",
    "train/.ipynb_checkpoints/0.png",
    "train/__MACOSX/cat/0.png",
    "train/@eaDir/0.png",
    "test/cat/.ipynb_checkpoints/0.png",
    "test/.thumbnails/0.png",
]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("content", ["image", "nonsense"])
def test_hidden_files_and_those_of_systems_are_left_out_and_counted(tree, junk, content):
    write_image(tree / "test/cat/9.png", random_image(9))
    before = load(tree)
    assert before.notes == ()
    write_image(tree / junk, random_image(10))
    if content == "nonsense":
        (tree / junk).write_bytes(b"\0\5\26\7 Mac OS X")
    after = load(tree)
    assert after.images.equal(before.images)
    assert after.test.images.equal(before.test.images)
    assert after.class_names == ("cat", "dog")
    name = next(part for part in junk.split("/") if part.startswith((".", "_", "@", "$")))
    assert after.notes == (f"left out: 1 hidden or system file ({name})",)


def test_files_that_are_left_out_are_counted_by_their_reason(tree):
    for name in ("train/cat/.DS_Store", "train/cat/deep/.DS_Store", "train/dog/Thumbs.db"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("")
    for name in ("train/cat/1.HEIC", "train/cat/2.heic", "train/cat/README", "train/labels.csv"):
        (tree / name).write_text("")
    write_image(tree / "train/stray.png", random_image(0))
    write_image(tree / "val/cat/0.png", random_image(0))
    write_image(tree / "validation/cat/0.png", random_image(0))
    data = load(tree)
    assert len(data) == 3
    assert data.notes == (
        "left out: 2 hidden or system files (.DS_Store), 5 files of other types (2 .heic, "
        "1 .csv, 1 no ending, ...), 1 stray image",
        "folders that are not read: validation",
    )
    write_image(tree / "test/cat/0.png", random_image(0))
    assert load(tree).notes[1] == "folders that are not read: val, validation"


def test_a_class_of_files_that_cannot_be_read_says_which(tree):
    (tree / "train/eel/.cache").mkdir(parents=True)
    for name in ("1.heic", "2.HEIC", ".cache/1.png"):
        (tree / "train/eel" / name).write_text("")
    message = (
        r"eel has no images \(left out: 1 hidden or system file \(\.cache\), "
        r"2 files of other types \(2 \.heic\)\): fill or remove it"
    )
    with pytest.raises(UserError, match=message):
        load(tree)


def savable():
    """Return the endings of all formats that Pillow both reads and writes."""
    Image.init()
    return sorted(s for s in suffixes() if Image.EXTENSION[s] in Image.SAVE)


@pytest.mark.parametrize("suffix", savable())
def test_every_format_of_pillow_is_read(tree, suffix):
    image = Image.new("RGB", (SIZE, SIZE), "white")
    image.paste("black", (SIZE // 2, 0, SIZE, SIZE))
    file = tree / "train/dog" / f"1{suffix.upper()}"
    for mode in ("RGB", "L", "1", "P", "RGBA"):
        try:
            image.convert(mode).save(file, Image.EXTENSION[suffix])
        except (OSError, KeyError, ValueError):  # the format has no such mode
            continue
        break
    else:
        pytest.skip("Pillow writes this format from none of the modes")
    with Image.open(file) as written:
        if written.size != (SIZE, SIZE):
            pytest.skip("an icon, which has sizes of its own")
    data = load(tree)
    assert len(data) == 4
    read = data.images[-1].numpy().astype(int)
    assert abs(read[:, :, :2] - 255).max() <= 40
    assert read[:, :, -2:].max() <= 40


@pytest.mark.parametrize("suffix", [".GIF", ".jfif", ".avif", ".jp2", ".JPE", ".Tga", ".qoi"])
def test_endings_are_those_of_pillow_in_any_case(suffix):
    assert suffix.lower() in suffixes()


@pytest.mark.parametrize("suffix", [".pdf", ".eps", ".ps", ".mpg", ".mpeg", ".h5", ".wmf", ".grib"])
def test_files_that_pillow_does_not_decode_are_no_images(tree, suffix):
    (tree / f"train/cat/film{suffix}").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    assert load(tree).notes == (f"left out: 1 file of other types (1 {suffix})",)


# Links


def test_linked_folders_and_files_are_followed(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_image(elsewhere / "more/5.png", random_image(5))
    write_image(elsewhere / "6.png", random_image(6))
    write_image(elsewhere / "owls/7.png", random_image(7))
    (tree / "train/cat/linked").symlink_to(elsewhere / "more")
    (tree / "train/dog/6.png").symlink_to(elsewhere / "6.png")
    (tree / "train/owl").symlink_to(elsewhere / "owls")
    data = load(tree)
    assert data.class_names == ("cat", "dog", "owl")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 2]
    expected = [np.moveaxis(random_image(seed), -1, 0) for seed in (0, 1, 5, 2, 6, 7)]
    assert np.array_equal(data.images[[0, 1, 2, 4, 5]], np.stack(expected)[[0, 1, 2, 4, 5]])
    assert data.notes == ()


@pytest.mark.parametrize("target", [".", "..", "../..", "deep", "/"])
def test_circular_and_repeated_links_are_not_followed(tree, target):
    write_image(tree / "train/cat/deep/8.png", random_image(8))
    before = load(tree)
    (tree / "train/cat/zz").symlink_to(target)
    after = load(tree)
    assert after.images.equal(before.images)
    assert after.labels.equal(before.labels)
    assert after.notes == ("left out: 1 repeated or circular link",)


def test_links_between_two_folders_end(tree, tmp_path_factory):
    a, b = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    (a / "to_b").symlink_to(b)
    (b / "to_a").symlink_to(a)
    write_image(b / "5.png", random_image(5))
    (tree / "train/cat/a").symlink_to(a)
    data = load(tree)
    assert data.labels.tolist() == [0, 0, 0, 1]
    assert data.notes == ("left out: 1 repeated or circular link",)


def test_a_broken_link_is_named(tree):
    (tree / "train/cat/gone.png").symlink_to(tree / "nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png cannot be read"):
        load(tree)


def test_a_pipe_is_not_waited_for(tree):
    os.mkfifo(tree / "train/cat/pipe.png")
    assert load(tree).notes == ("left out: 1 pipe or device",)


def test_a_folder_that_cannot_be_read_is_named(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    (tree / "train/cat/deep").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"folder .*deep cannot be read: Permission denied"):
        load(tree)


def test_a_tree_of_one_colour_is_refused(tmp_path):
    for name in "ab":
        write_image(tmp_path / f"train/{name}/0.png", np.zeros((SIZE, SIZE), np.uint8))
    with pytest.raises(UserError, match="all pixels of all training images are 0 of 0 to 255"):
        load(tmp_path)


def test_memory_is_checked_before_files_are_measured(tree, monkeypatch):
    monkeypatch.setattr(imagefolder, "available_memory", lambda: 100)
    monkeypatch.setattr(imagefolder.ValueRanges, "of", lambda *_: pytest.fail("measured"))
    with pytest.raises(UserError, match="choose a smaller image_size"):
        load(tree)
