"""Orientation, transparency, palettes and frames of image files."""

import io
import random
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image

from search_spaces.errors import UserError
from tests.trainables.data.image_writers import random_image, write_image, write_tiff
from trainables.data import load_dataset

SIZE = 8

# What the stored pixels show upright: EXIF 2.32, tag 0x0112, "row 0 is ..., column 0 is ...".
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.swapaxes(0, 1),  # left, top
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda a: a.swapaxes(0, 1)[::-1],  # left, bottom
}


@pytest.fixture
def read(tmp_path):
    """Return the function that reads a file of the training part, among others, and the notes."""
    for seed, name in enumerate("ab"):
        write_image(tmp_path / f"train/{name}/0.png", random_image(seed))

    def read(suffix, write):
        file = tmp_path / f"train/a/1.{suffix}"
        write(file)
        with warnings.catch_warnings(action="error"):
            data = load_dataset("imagefolder", tmp_path, image_size=SIZE)
        file.unlink()
        return data.images[1].permute(1, 2, 0).numpy(), data.notes

    return read


def with_orientation(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "camera"
    return exif


LOSSLESS = {"png": {}, "webp": {"lossless": True}, "tif": {}, "tiff": {"compression": "tiff_lzw"}}


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_photographs_are_upright(read, suffix, orientation):
    stored = random_image(3)
    options = {"exif": with_orientation(orientation), **LOSSLESS[suffix]}
    shown, notes = read(suffix, lambda file: Image.fromarray(stored).save(file, **options))
    assert np.array_equal(shown, UPRIGHT[orientation](stored))
    turned = "1 image turned upright, as the EXIF orientation says"
    assert notes == ((turned,) if orientation > 1 else ())


@pytest.mark.parametrize("suffix", ["jpg", "avif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_photographs_with_losses_are_upright_and_cropped_as_they_are_shown(
    read, suffix, orientation
):
    # Wide, dark at the left third of what is stored; large enough for a JPEG to be drafted.
    stored = np.full((192, 384, 3), 200, np.uint8)
    stored[:, :128] = 20
    shown, _ = read(
        suffix,
        lambda file: Image.fromarray(stored).save(file, exif=with_orientation(orientation)),
    )
    upright = UPRIGHT[orientation](stored)
    centre = upright[96:-96] if upright.shape[0] > 192 else upright[:, 96:-96]
    expected = centre.reshape(SIZE, 24, SIZE, 24, 3).mean((1, 3))
    assert abs(shown[2:-2, 2:-2] - expected[2:-2, 2:-2]).max() < 70
    assert abs(shown - expected).mean() < 15


def test_photographs_of_phones_with_a_second_image_are_upright(read):
    stored = np.zeros((SIZE, SIZE, 3), np.uint8)
    stored[:, SIZE // 2 :] = 255
    second = Image.new("RGB", (SIZE, SIZE))
    options = {"format": "MPO", "save_all": True, "append_images": [second], "quality": 100}
    exif = with_orientation(8)
    shown, notes = read("jpg", lambda f: Image.fromarray(stored).save(f, exif=exif, **options))
    assert abs(shown - UPRIGHT[8](stored).astype(int)).max() < 40
    assert notes == ("1 image turned upright, as the EXIF orientation says",)


def test_16_bit_photographs_are_upright(read):
    stored = np.arange(64, dtype=np.uint16).reshape(SIZE, SIZE) * 1040
    for orientation, upright in UPRIGHT.items():
        for suffix in ("png", "tif"):
            exif = with_orientation(orientation)
            shown, _ = read(suffix, lambda f, e=exif: Image.fromarray(stored).save(f, exif=e))
            assert np.array_equal(shown[..., 0], np.rint(upright(stored) * (255 / 65535)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_damaged_exif_data_does_not_stop_a_run(read, suffix):
    sound = with_orientation(6).tobytes()
    rng = random.Random(0)
    pixels = np.full((SIZE, SIZE, 3), 100, np.uint8)
    unknown = 0
    for _ in range(40):
        damaged = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(6, len(damaged))] = rng.randrange(256)
        cut = bytes(damaged[: rng.randrange(8, len(damaged))])
        shown, notes = read(suffix, lambda f, e=cut: Image.fromarray(pixels).save(f, exif=e))
        assert abs(shown.astype(int) - 100).max() < 4
        unknown += notes == (
            "1 image with damaged EXIF data, so that the orientation is not known",
        )
    assert suffix == "jpg" or unknown  # most damage of a JPEG's is taken as no orientation


# Transparency and palettes


def on_white(colours, alpha):
    return np.rint(colours * (alpha / 255) + 255 * (1 - alpha / 255))


def test_transparent_parts_are_white(read):
    rgba = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    expected = on_white(rgba[..., :3].astype(float), rgba[..., 3:])
    for suffix in ("png", "tif", "tga"):
        shown, notes = read(suffix, lambda file: Image.fromarray(rgba).save(file))
        assert abs(shown - expected).max() <= 1
        assert notes == ("1 image put on white where transparent",)
    bands = [Image.fromarray(rgba[..., band]) for band in (0, 3)]
    grey = Image.merge("LA", bands)
    shown, _ = read("png", grey.save)
    assert abs(shown - on_white(rgba[..., :1].astype(float), rgba[..., 3:])).max() <= 1


def test_an_opaque_alpha_channel_changes_nothing(read):
    opaque = np.dstack([random_image(5), np.full((SIZE, SIZE), 255, np.uint8)])
    shown, notes = read("png", lambda file: Image.fromarray(opaque).save(file))
    assert np.array_equal(shown, opaque[..., :3])
    assert notes == ()


def palette_image():
    """Return an image of four colours, and the colour of each pixel."""
    indices = np.random.default_rng(1).integers(0, 4, (SIZE, SIZE), dtype=np.uint8)
    indices.flat[:4] = range(4)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    return image, indices, colours[indices]


@pytest.mark.parametrize("suffix", ["png", "gif", "tif", "bmp"])
def test_a_palette_gives_its_colours(read, suffix):
    image, _, colours = palette_image()
    shown, notes = read(suffix, image.save)
    assert np.array_equal(shown, colours)
    assert notes == ()


@pytest.mark.parametrize(
    ("suffix", "transparency", "transparent"),
    [("png", 2, [0, 0, 255, 0]), ("gif", 2, [0, 0, 255, 0]), ("png", bytes([255, 0, 128]), None)],
)
def test_transparent_colours_of_a_palette_are_white(read, suffix, transparency, transparent):
    image, indices, colours = palette_image()
    alpha = np.array([255, 0, 128, 255] if transparent is None else 255 - np.array(transparent))
    shown, notes = read(suffix, lambda file: image.save(file, transparency=transparency))
    assert abs(shown - on_white(colours.astype(float), alpha[indices][..., None])).max() <= 1
    assert notes == ("1 image put on white where transparent",)


@pytest.mark.parametrize("kind", ["grey", "colour", "1 bit", "16 bits"])
def test_a_transparent_value_is_white(read, kind):
    pixels = {
        "grey": random_image(4)[..., 0],
        "colour": random_image(4),
        "1 bit": random_image(4)[..., 0] > 127,
        "16 bits": random_image(4)[..., 0].astype(np.uint16) * 256,
    }[kind]
    key = pixels[2, 3]
    if kind == "colour":
        transparency = tuple(map(int, key))
    else:
        transparency = int(key) * (255 if kind == "1 bit" else 1)
    shown, notes = read(
        "png", lambda file: Image.fromarray(pixels).save(file, transparency=transparency)
    )
    same = (pixels == key).all(-1) if kind == "colour" else pixels == key
    assert (shown[same] == 255).all()
    assert "1 image put on white where transparent" in notes
    if kind == "grey":
        assert np.array_equal(shown[~same][:, 0], pixels[~same])


def test_cmyk_is_read_as_pillow_converts_it(read):
    cmyk = Image.fromarray(random_image(6)).convert("CMYK")
    shown, _ = read("tif", cmyk.save)
    assert abs(shown.astype(int) - random_image(6)).max() <= 1


# Frames


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_frame_is_read_and_others_are_told(read, suffix):
    first, second = (Image.new("RGB", (SIZE, SIZE), colour) for colour in ("white", "black"))
    options = {"lossless": True} if suffix == "webp" else {}
    shown, notes = read(
        suffix,
        lambda file: first.save(file, save_all=True, append_images=[second], **options),
    )
    assert (shown == 255).all()
    assert notes == ("1 image with several frames or pages, of which the first is read",)


# What cannot be read


def half_of(image, suffix):
    stream = io.BytesIO()
    image.save(stream, suffix)
    return stream.getvalue()[: stream.tell() // 2]


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("1.png", lambda f: f.write_text("version https://git-lfs"), "no format that Pillow"),
        ("1.jpg", lambda f: f.write_bytes(b""), "no format that Pillow"),
        (
            "1.gif",
            lambda f: f.write_bytes(half_of(Image.fromarray(random_image(0, 64)), "GIF")),
            "cannot be read",
        ),
        ("1.tif", lambda f: write_tiff(f, np.zeros((8, 8), np.float64)), "no format that Pillow"),
        ("1.tif", lambda f: write_tiff(f, np.zeros((8, 8, 3), np.float32)), "no format that"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(read, name, write, message):
    with pytest.raises(UserError, match=rf"image .*{name} cannot be read.*{message}|{message}"):
        read(name.split(".")[1], write)


def test_pixels_of_a_large_camera_give_no_warning(read, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    shown, notes = read("png", lambda file: Image.fromarray(random_image(2)).save(file))
    assert np.array_equal(shown, random_image(2))
    assert notes == ()
    with pytest.raises(UserError, match="decompression bomb"):
        read("png", lambda file: Image.fromarray(random_image(2, 16)).save(file))
