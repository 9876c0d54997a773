"""Image files of kinds that Pillow does not write, and trees of files."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image


def write_tiff(path: Path, values: np.ndarray, photometric: int | None = None) -> None:
    """Write an uncompressed TIFF (H, W) or (H, W, 3), after the specification of TIFF 6.0."""
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    height, width, *channels = values.shape
    samples = channels[0] if channels else 1
    bits = 8 * values.dtype.itemsize
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    if photometric is None:
        photometric = 2 if samples == 3 else 1
    entries = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * samples),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [None]),  # the offset of the values, filled in below
        (277, 3, [samples]),
        (278, 4, [height]),
        (279, 4, [values.nbytes]),
        (339, 3, [sample_format] * samples),
    ]
    after = 8 + 2 + 12 * len(entries) + 4
    extra = b""
    body = struct.pack("<H", len(entries))
    for tag, kind, numbers in entries:
        content = b"".join(
            struct.pack({3: "<H", 4: "<I"}[kind], after + 12 if n is None else n) for n in numbers
        )
        if len(content) > 4:
            place, extra = struct.pack("<I", after + len(extra)), extra + content
        else:
            place = content.ljust(4, b"\0")
        body += struct.pack("<HHI", tag, kind, len(numbers)) + place
    content = b"II*\0" + struct.pack("<I", 8) + body + b"\0" * 4 + extra.ljust(12, b"\0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content + values.tobytes())


def write_pgm(path: Path, values: np.ndarray, largest: int) -> None:
    """Write a binary PGM (H, W) whose header states the largest value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    kind = ">u2" if largest > 255 else "u1"
    path.write_bytes(f"P5 {width} {height} {largest}\n".encode() + values.astype(kind).tobytes())


def write_image(path: Path, values: np.ndarray, **options: object) -> None:
    """Write an image with Pillow, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def random_image(seed: int, size: int = 8) -> np.ndarray:
    """Return a random image in colour, uint8 (size, size, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
