"""Values of image files with more than 8 bits: one range for the tree, or a refusal."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserError
from tests.trainables.data.image_writers import random_image, write_image, write_pgm, write_tiff
from trainables.data import load_dataset

SIZE = 8


def spread(low, high, dtype, seed):
    """Draw values between two, with both among them."""
    rng = np.random.default_rng(seed)
    values = low + (high - low) * rng.random((SIZE, SIZE))
    values.flat[:2] = low, high
    return np.rint(values).astype(dtype) if np.dtype(dtype).kind in "iu" else values.astype(dtype)


def greys(values, low, high):
    """Scale a range to 0 to 255, in float64."""
    return np.rint((values.astype(np.float64) - low) * 255 / (high - low)).clip(0, 255)


def load(root, **options):
    return load_dataset("imagefolder", root, image_size=SIZE, **options)


WRITERS = {
    "png": write_image,
    "tif": write_image,
    "jp2": lambda path, values: write_image(path, values, irreversible=False),
    "pgm": lambda path, values: write_pgm(path, values, 65535),
    "tiff": write_tiff,
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("bits", [16, 12, 10])
def test_16_bit_files_are_scaled_by_the_bits_that_are_used(tmp_path, suffix, bits):
    dark = spread(0, 2**bits // 3, np.uint16, 0)
    bright = spread(2**bits // 3, 2**bits - 1, np.uint16, 1)
    WRITERS[suffix](tmp_path / f"train/dark/a.{suffix}", dark)
    WRITERS[suffix](tmp_path / f"train/light/b.{suffix}", bright)
    data = load(tmp_path)
    for image, values in zip(data.images, (dark, bright), strict=True):
        assert (image == image[:1]).all()
        assert np.array_equal(image[0], greys(values, 0, 2**bits - 1))
    assert data.notes == (
        f"16-bit values in 2 training images, 0 to {2**bits - 1:,}: 0 to {2**bits - 1:,} became "
        f"0 to 255",
    )


def test_a_pgm_is_scaled_by_the_largest_value_that_it_states(tmp_path):
    values = spread(0, 1000, np.uint16, 0)
    write_pgm(tmp_path / "train/a/a.pgm", values, 1000)
    write_pgm(tmp_path / "train/b/b.pgm", spread(0, 1000, np.uint16, 1), 1000)
    difference = load(tmp_path).images[0, 0].numpy() - greys(values, 0, 1000)
    assert abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "low", "high", "expected"),
    [
        ("f4", 0, 1, (0, 1)),
        ("f4", -1, 1, (-1, 1)),
        ("f4", 0.125, 0.75, (0, 1)),
        ("f4", -0.5, 0.5, (-1, 1)),
        ("f4", 0, 0.0625, (0, 0.0625)),
        ("f4", 0, 255, (0, 255)),
        ("f4", -2.125, 2.625, (-2.125, 2.625)),
        ("u2", 28_000, 32_000, (28_000, 32_000)),
        ("u2", 0, 255, (0, 255)),
        ("u2", 0, 1, (0, 1)),
        ("i2", -1024, 3071, (-1024, 3071)),
        ("i2", 0, 3071, (0, 4095)),
        ("u4", 0, 2**32 - 1, (0, 2**32 - 1)),
        ("u4", 0, 2**20 - 1, (0, 2**20 - 1)),
        ("i4", 0, 2**31 - 1, (0, 2**31 - 1)),
        ("i4", -70_000, 500_000, (-70_000, 500_000)),
        ("i1", -128, 127, (-128, 127)),
    ],
)
def test_other_types_have_the_range_of_their_training_files(tmp_path, dtype, low, high, expected):
    every = [spread(low, high, dtype, seed) for seed in range(2)]
    write_tiff(tmp_path / "train/a/a.tif", every[0])
    write_tiff(tmp_path / "train/b/b.tif", every[1])
    data = load(tmp_path)
    for image, values in zip(data.images, every, strict=True):
        assert abs(image[0].numpy() - greys(values, *expected)).max() <= (dtype == "f4")
    (note,) = data.notes
    assert note.endswith("became 0 to 255")
    assert load(tmp_path, value_range=[*expected]).images.equal(data.images)


def test_zero_is_white_where_the_file_says_so(tmp_path):
    values = spread(0, 65535, np.uint16, 0)
    write_tiff(tmp_path / "train/a/a.tif", values, photometric=1)
    write_tiff(tmp_path / "train/b/b.tif", values, photometric=0)
    black, white = load(tmp_path).images
    assert (255 - white).equal(black)


def test_files_of_several_types_have_a_range_each(tmp_path):
    write_image(tmp_path / "train/a/a.png", random_image(0))
    write_image(tmp_path / "train/a/b.png", spread(0, 4095, np.uint16, 0))
    write_tiff(tmp_path / "train/b/a.tif", spread(0, 1, np.float32, 0))
    data = load(tmp_path)
    assert np.array_equal(data.images[0].permute(1, 2, 0), random_image(0))
    assert [int(image.max()) for image in data.images[1:]] == [255, 255]
    assert [note.split(":")[0] for note in data.notes] == [
        "16-bit values in 1 training image, 0 to 4,095",
        "floating point values in 1 training image, 0 to 1",
    ]


def test_16_bit_colours_are_read_if_they_use_their_bits(tmp_path):
    colours = np.random.default_rng(0).integers(0, 65536, (SIZE, SIZE, 3), dtype=np.uint16)
    for name in "ab":
        write_tiff(tmp_path / f"train/{name}/a.tif", colours)
    data = load(tmp_path)
    assert np.array_equal(data.images[0].permute(1, 2, 0), colours >> 8)
    assert "16-bit colour values in 2 training images: 0 to 65,535 became 0 to 255" in data.notes[0]
    for name in "ab":
        write_tiff(tmp_path / f"train/{name}/a.tif", colours >> 4)
    with pytest.raises(
        UserError, match="Pillow reads only the upper 8 bits of each: convert them to 8 bits"
    ):
        load(tmp_path)


@pytest.fixture
def tree(tmp_path):
    write_image(tmp_path / "train/a/a.png", spread(0, 4000, np.uint16, 0))
    write_image(tmp_path / "train/b/b.png", spread(100, 4000, np.uint16, 1))
    return tmp_path


def test_the_test_part_has_the_range_of_the_training_part(tree):
    inside, outside = spread(0, 4095, np.uint16, 2), spread(0, 60_000, np.uint16, 3)
    write_image(tree / "test/a/a.png", inside)
    write_image(tree / "test/b/b.png", outside)
    data = load(tree)
    assert np.array_equal(data.test.images[0, 0], greys(inside, 0, 4095))
    assert np.array_equal(data.test.images[1, 0], greys(outside, 0, 4095))
    assert data.notes[0].endswith("; values outside are cut off in 1 image")


def test_a_range_that_no_training_file_has_is_given_or_refused(tree):
    write_tiff(tree / "test/a/a.tif", spread(0, 1, np.float32, 0))
    with pytest.raises(UserError, match=r"a\.tif has floating point values, and no training image"):
        load(tree)
    (tree / "test/a/a.tif").unlink()
    write_tiff(tree / "test/a/a.tif", spread(0, 4000, np.float32, 0))
    data = load(tree, value_range=[0, 4000])
    assert (int(data.test.images.min()), int(data.test.images.max())) == (0, 255)
    assert data.notes[0].endswith("0 to 4,000 became 0 to 255 (data.options.value_range)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["train", "test"])
def test_values_that_are_no_numbers_are_refused(tmp_path, value, part):
    values = spread(0, 1, np.float32, 0)
    for name in "ab":
        write_tiff(tmp_path / f"train/{name}/a.tif", values)
    broken = values.copy()
    broken[3, 4] = value
    write_tiff(tmp_path / part / "b/broken.tif", broken)
    for options in ({}, {"value_range": [0, 1]}):
        with pytest.raises(UserError, match=r"broken\.tif has values that are not numbers"):
            load(tmp_path, **options)


def test_a_single_value_has_no_range(tmp_path):
    for name in "ab":
        write_image(tmp_path / f"train/{name}/a.png", np.full((SIZE, SIZE), 900, np.uint16))
    with pytest.raises(UserError, match=r"such as .*a\.png, are all 900: their range"):
        load(tmp_path)


def test_a_value_far_from_all_others_is_refused_and_a_range_helps(tree):
    for seed in range(3):
        write_image(tree / f"train/a/{seed}.png", spread(0, 4000, np.uint16, seed))
    hot = spread(0, 4000, np.uint16, 9)
    hot[0, 0] = 2**16 - 1
    write_tiff(tree / "train/b/hot.tif", hot)
    # 4000 of 65535 is less than 1/16.
    with pytest.raises(UserError, match=r"6 .* range 0 to 65,535, but most .*\.png \(\d+ to"):
        load(tree)
    data = load(tree, value_range=[0, 4000])
    assert np.array_equal(data.images[0, 0], greys(spread(0, 4000, np.uint16, 0), 0, 4000))
    assert data.notes[0].endswith("; values outside are cut off in 1 image")


def test_few_flat_images_are_counted(tmp_path):
    for seed in range(3):
        write_image(tmp_path / f"train/a/{seed}.png", spread(0, 65535, np.uint16, seed))
    write_image(tmp_path / "train/b/a.png", spread(0, 4000, np.uint16, 7))
    assert load(tmp_path).notes[0].endswith("; less than 1/16 of it is in 1 image")


@pytest.mark.parametrize(
    ("value_range", "message"),
    [
        ([0], r"must be two numbers \[low, high\] \(got \[0"),
        ([0, 1, 2], "must be two numbers"),
        ([0, float("nan")], "must be two numbers"),
        ([0, float("inf")], "must be two numbers"),
        ([1, 1], "from a lower to a higher"),
        ([4095, 0], "from a lower to a higher"),
        ("0,1", "option value_range"),
        (["0", "1"], "option value_range"),
        ([-2, -1], "all pixels of all training images are 255"),
        ([70_000, 80_000], "all pixels of all training images are 0"),
    ],
)
def test_a_wrong_range_is_refused(tree, value_range, message):
    with pytest.raises(UserError, match=message):
        load(tree, value_range=value_range)


def test_masks_of_8_bits_are_told(tmp_path):
    mask = np.random.default_rng(0).integers(0, 2, (SIZE, SIZE), dtype=np.uint8)
    for name in "ab":
        write_image(tmp_path / f"train/{name}/a.png", mask)
    data = load(tmp_path)
    assert np.array_equal(data.images[0, 0], mask)
    assert data.notes == ("all training pixels are between 0 and 1 of 0 to 255",)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    dtype=st.sampled_from(["u2", "i2", "u4", "i4", "f4", "i1"]),
    bounds=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2, unique=True),
    power=st.integers(0, 6),
)
def test_any_values_keep_their_order_and_span_the_greys(tmp_path, dtype, bounds, power):
    if np.dtype(dtype).kind == "f":
        smallest, largest = -1e6, 1e6
    else:
        smallest, largest = np.iinfo(dtype).min, np.iinfo(dtype).max
    low, high = (smallest + (largest - smallest) * b / 10**power for b in sorted(bounds))
    if np.dtype(dtype).kind != "f" and round(low) == round(high):
        high = low + 1
    every = [spread(low, high, dtype, seed) for seed in range(2)]
    for name, values in zip("ab", every, strict=True):
        write_tiff(tmp_path / f"train/{name}/a.tif", values)
    values = np.concatenate([v.flatten() for v in every])
    if values.min() == values.max():
        return
    read = load(tmp_path).images[:, 0].flatten().numpy().astype(int)
    assert (np.diff(read[values.argsort(kind="stable")]) >= 0).all()
    assert read.max() - read.min() >= 63
