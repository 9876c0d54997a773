"""Images of another size or number of channels."""

import numpy as np
import pytest
import torch
from PIL import Image

from search_spaces.errors import UserError
from trainables.data.fit import fit_data, fit_images


def test_grey_is_copied_and_colours_are_averaged_as_pillow_does():
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(256, (5, 3, 8, 6), dtype=torch.uint8, generator=generator)
    grey = fit_images(colours, 1, None)
    for image, result in zip(colours, grey, strict=True):
        expected = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(expected.astype(int) - result[0].numpy().astype(int)).max() <= 1
    again = fit_images(grey, 3, None)
    assert torch.equal(again, grey.expand(-1, 3, -1, -1))
    assert torch.equal(fit_images(colours, 3, None), colours)


def test_sizes_change_as_pillow_resizes(digits):
    for size in (5, 28):
        result = fit_images(digits.images[:20], 3, size)
        assert result.shape == (20, 3, size, size)
        for image, own in zip(digits.images[:20], result, strict=True):
            expected = Image.fromarray(image[0].numpy()).resize((size, size), Image.BILINEAR)
            assert np.abs(np.array(expected).astype(int) - own[1].numpy()).max() <= 1


def test_a_set_keeps_its_classes_and_names(digits):
    fitted = fit_data(digits, 3, 16)
    assert fitted.images.shape == (1797, 3, 16, 16)
    assert torch.equal(fitted.labels, digits.labels)
    assert fitted.name == "digits"
    assert fit_data(digits, None, None) is digits


def test_other_channels_are_refused():
    with pytest.raises(UserError, match=r"2 channel\(s\) cannot be turned into 3"):
        fit_images(torch.zeros(1, 2, 4, 4, dtype=torch.uint8), 3, None)
    with pytest.raises(UserError, match="cannot be turned into 2"):
        fit_images(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 2, None)
