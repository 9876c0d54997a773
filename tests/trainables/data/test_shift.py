"""Corruptions of a data set: reproducible, stronger with the severity, test images kept apart."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from sase_ray.config import load_config
from search_spaces.errors import UserError
from trainables.data import Shift, make_splits, shift_data
from trainables.data.dataset import ImageData, LabelledImages
from trainables.data.shift import CORRUPTIONS, shift_images
from trainables.shift_settings import KINDS


def test_settings_know_every_kind():
    assert tuple(CORRUPTIONS) == KINDS


@pytest.fixture(scope="module")
def images():
    """Smooth random pictures with some structure: (200, 3, 28, 24), uint8."""
    rough = torch.rand(200, 3, 4, 3, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(rough, (28, 24), mode="bilinear")
    return (smooth * 255).to(torch.uint8)


def distance(one, other):
    return float((one.float() - other.float()).square().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_keeps_shape_and_type_and_is_fixed_by_its_seed(kind, images):
    before = images.clone()
    first = shift_images(images, [kind], 3.0, seed=1)
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert torch.equal(images, before)
    assert torch.equal(first, shift_images(images, [kind], 3.0, seed=1))
    assert not torch.equal(first, shift_images(images, [kind], 3.0, seed=2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_higher_severity_leads_further_away(kind, images):
    distances = [distance(shift_images(images, [kind], s), images) for s in (1, 2, 3, 4, 5)]
    assert distances == sorted(distances)
    assert distances[0] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_level_zero_changes_nothing(kind, images):
    x = images.float() / 255
    same = CORRUPTIONS[kind](x, torch.zeros(len(x)), torch.Generator().manual_seed(0))
    torch.testing.assert_close(same, x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_pixel_and_one_image_are_enough(kind):
    one = torch.full((1, 1, 1, 1), 100, dtype=torch.uint8)
    assert shift_images(one, [kind]).shape == one.shape


def test_strengths_are_those_of_the_formulas():
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 2
    generator = torch.Generator().manual_seed(0)
    level = torch.tensor([2.0, 2.5])
    bright = CORRUPTIONS["brightness"](x, level, generator)
    torch.testing.assert_close(bright[1], x[1] + 0.25)
    flat = CORRUPTIONS["contrast"](x, level, generator)
    torch.testing.assert_close(flat.std((1, 2, 3)) / x.std((1, 2, 3)), torch.tensor([0.3, 0.25]))
    many = torch.full((1, 1, 300, 300), 0.5)
    noisy = CORRUPTIONS["noise"](many, torch.tensor([5.0]), generator)
    assert float(noisy.std()) == pytest.approx(0.38, rel=0.02)
    grey = CORRUPTIONS["occlusion"](torch.zeros(1, 1, 20, 30), torch.tensor([5.0]), generator)
    assert int((grey == 0.5).sum()) == 12 * 18
    coarse = CORRUPTIONS["pixelation"](x, torch.tensor([5.0, 5.0]), generator)
    blocks = torch.nn.functional.avg_pool2d(x, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(coarse, blocks)


def test_a_blur_is_a_gaussian_convolution():
    x = torch.zeros(1, 1, 41, 41)
    x[0, 0, 20, 20] = 1
    blurred = CORRUPTIONS["blur"](x, torch.tensor([5.0]), torch.Generator())[0, 0]
    deviation = 0.07 * 41
    line = torch.exp(-0.5 * ((torch.arange(41) - 20) / deviation) ** 2)
    expected = line[:, None] * line[None]
    expected = torch.where(blurred > 0, expected, 0)
    torch.testing.assert_close(blurred, expected / expected.sum(), rtol=1e-4, atol=1e-7)


def test_clutter_covers_up_to_half_with_another_image(images):
    x = torch.arange(50.0)[:, None, None, None].expand(50, 1, 10, 10)
    cluttered = CORRUPTIONS["clutter"](x, torch.full((50,), 5.0), torch.Generator().manual_seed(3))
    kept = (cluttered == x).flatten(1).sum(1)
    assert set(kept.tolist()) <= {50, 100}  # half of it, or an image laid over itself
    assert (kept == 50).sum() > 40


def test_kinds_are_applied_one_after_the_other(images):
    both = shift_images(images, ["contrast", "brightness"], 4.0)
    one = shift_images(shift_images(images, ["contrast"], 4.0), ["brightness"], 4.0)
    assert torch.equal(both, one)


@pytest.mark.parametrize("official", [True, False])
def test_no_test_image_reaches_the_other_parts(digits, official):
    data = digits
    if official:
        rest = digits.select(torch.arange(1500))
        test = digits.select(torch.arange(1500, 1797))
        data = ImageData(
            rest.images,
            rest.labels,
            digits.class_names,
            test,
            name="digits",
            augmentation=digits.augmentation,
        )
    shift = Shift(kinds=["clutter", "noise"])
    splits = make_splits(data, seed=0)
    if official:
        other = LabelledImages(data.test.images.flip(0), data.test.labels)
        changed = ImageData(
            data.images,
            data.labels,
            data.class_names,
            other,
            name="digits",
            augmentation=data.augmentation,
        )
    else:
        images = data.images.clone()
        images[splits.test] = 255 - images[splits.test]
        changed = ImageData(
            images, data.labels, data.class_names, name="digits", augmentation=data.augmentation
        )
    first, second = shift_data(data, shift), shift_data(changed, shift)
    for part in (splits.train, splits.validation):
        assert torch.equal(first.images[part], second.images[part])
        assert not torch.equal(first.images[part], data.images[part])
    assert torch.equal(first.labels, data.labels)
    shifted_test = first.test.images if official else first.images[splits.test]
    plain_test = data.test.images if official else data.images[splits.test]
    assert not torch.equal(shifted_test, plain_test)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="did you mean 'contrast'"):
        shift_images(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), ["contrasts"])
    with pytest.raises(UserError, match=r"data\.shift\.kinds.*did you mean 'noise'"):
        load_config({"data": {"shift": {"kinds": ["nois"]}}})
    with pytest.raises(UserError, match=r"data\.shift\.severity"):
        load_config({"data": {"shift": {"kinds": "fog", "severity": 6}}})
    with pytest.raises(UserError, match="did you mean 'severity'"):
        load_config({"data": {"shift": {"kinds": "fog", "severty": 3}}})
    with pytest.raises(ValidationError):
        Shift(kinds=[])
    assert load_config({"data": {"shift": {"kinds": "fog"}}}).data.shift.kinds == ("fog",)
