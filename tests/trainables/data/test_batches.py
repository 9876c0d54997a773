"""Batches and augmentation: against a loop over images, and resumed exactly."""

import io

import pytest
import torch

from search_spaces.errors import UserError
from trainables.data import (
    Augmentation,
    Batches,
    LabelledImages,
    Normalisation,
    load_dataset,
    make_splits,
    search_data,
)
from trainables.data.augment import (
    crop,
    cut_out,
    normalise,
    random_crop,
    random_cutout,
    random_flip,
)

PLAIN = Normalisation((0.0,), (1.0,))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(count: int = 9, channels: int = 3, height: int = 6, width: int = 8) -> torch.Tensor:
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, generator=seeded(0), dtype=torch.uint8)


def numbered(count: int) -> LabelledImages:
    """Image i is (1, 4, 4) full of i + 1, with label i."""
    images = torch.arange(1, count + 1, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return LabelledImages(images.contiguous(), torch.arange(count))


@pytest.fixture(scope="module")
def search():
    data = load_dataset("digits")
    return search_data(data, make_splits(data, seed=0))


# Augmentation


def test_crop_is_a_window_of_the_padded_image():
    images, padding = some_images(), 2
    tops, lefts = torch.randint(5, (2, len(images)), generator=seeded(1))
    found = crop(images, padding, tops, lefts)
    for image, window, top, left in zip(images, found, tops, lefts, strict=True):
        for y in range(6):
            for x in range(8):
                row, column = y + int(top) - padding, x + int(left) - padding
                inside = 0 <= row < 6 and 0 <= column < 8
                expected = image[:, row, column] if inside else torch.zeros(3, dtype=torch.uint8)
                assert torch.equal(window[:, y, x], expected)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_cut_out_is_a_square_about_the_centre(size):
    images = some_images()
    rows = torch.randint(6, (len(images),), generator=seeded(1))
    columns = torch.randint(8, (len(images),), generator=seeded(2))
    expected = images.clone()
    for image, row, column in zip(expected, rows.tolist(), columns.tolist(), strict=True):
        top, left = row - size // 2, column - size // 2
        image[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0
    assert torch.equal(cut_out(images, size, rows, columns), expected)


def test_random_crop_draws_every_offset_alike_and_on_its_own():
    padding, count = 1, 9000
    images = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).expand(count, 1, 3, 3)
    # The centre pixel of the crop tells which of the nine offsets it was.
    centre = random_crop(images, padding, seeded(0))[:, 0, 1, 1].long()
    shares = torch.bincount(centre, minlength=10)[1:] / count
    assert (shares - 1 / 9).abs().max() < 0.015


def test_random_flip_mirrors_half_of_the_images():
    images = some_images(2000)
    found = random_flip(images, seeded(0))
    flipped = (found == images.flip(3)).flatten(1).all(1)
    same = (found == images).flatten(1).all(1)
    assert (flipped ^ same).all()
    assert 0.45 < flipped.float().mean() < 0.55


def test_random_cutout_hides_at_most_the_square():
    images = some_images(500, 1)
    hidden = (random_cutout(images, 3, seeded(0)) == 0).flatten(1).sum(1)
    assert hidden.max() == 9
    assert hidden.min() == 4  # a centre in a corner leaves 2 x 2 of the square
    assert (random_cutout(images, 3, seeded(0)) == 0).flatten(1).any(0).all()


@pytest.mark.parametrize("draw", [random_crop, random_cutout])
def test_random_functions_follow_their_generator_alone(draw):
    images = some_images(50)
    first = draw(images, 2, seeded(3))
    torch.manual_seed(99)
    assert torch.equal(first, draw(images, 2, seeded(3)))
    assert not torch.equal(first, draw(images, 2, seeded(4)))
    assert first.dtype == torch.uint8
    assert first.shape == images.shape


def test_augmentation_works_on_one_image_and_keeps_floats():
    images = some_images(1).float()
    for found in (random_crop(images, 1, seeded(0)), random_flip(images, seeded(0))):
        assert found.shape == images.shape
        assert found.dtype == torch.float32


# Normalisation


def test_normalise_is_the_textbook_formula():
    images = some_images()
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    expected = (images.double() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(normalise(images, mean, std), expected.float())
    half = normalise(images, mean, std, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, normalise(images, mean, std).bfloat16())


def test_normalised_train_part_has_mean_0_and_deviation_1(search):
    batches = Batches(search.train, 128, search.normalisation)
    images = torch.cat([images for images, _ in batches])
    assert len(images) == len(search.train)
    assert images.mean().abs() < 1e-5
    assert (images.std(correction=0) - 1).abs() < 1e-5


def test_statistics_are_per_channel():
    images = some_images(20)
    images[:, 1] //= 3
    images[:, 2] = 51
    found = Normalisation.of(images)
    pixels = images.double() / 255
    assert found.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert found.std[:2] == pytest.approx(pixels.std((0, 2, 3), correction=0)[:2].tolist())
    assert found.std[2] == 1.0  # a channel that never varies is not divided by 0


# Batches


def labels_of(batches) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches]


def test_an_epoch_yields_each_image_once_with_its_label():
    batches = Batches(numbered(10), 4, PLAIN, shuffle=True)
    epoch = list(batches)
    assert len(epoch) == len(batches) == 3
    assert [len(labels) for _, labels in epoch] == [4, 4, 2]
    assert batches.samples_per_epoch == 10
    assert sorted(label for labels in labels_of(epoch) for label in labels) == list(range(10))
    for images, labels in epoch:
        assert images.dtype == torch.float32
        pixels = (images * 255).round().flatten(1)
        assert torch.equal(pixels, (labels + 1.0)[:, None].expand(-1, 16))


def test_drop_last_leaves_out_the_rest():
    batches = Batches(numbered(10), 4, PLAIN, drop_last=True)
    assert labels_of(batches) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert (len(batches), batches.samples_per_epoch) == (2, 8)


def test_indices_choose_the_images():
    batches = Batches(numbered(10), 2, PLAIN, indices=torch.tensor([7, 1, 3]))
    assert labels_of(batches) == [[7, 1], [3]]


def test_order_is_fixed_by_the_seed_and_new_in_each_epoch():
    def orders(seed: int) -> list[list[list[int]]]:
        batches = Batches(numbered(50), 16, PLAIN, seed=seed, shuffle=True)
        return [labels_of(batches) for _ in range(3)]

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    first, second, third = orders(1)
    assert first != second != third


def test_order_does_not_depend_on_the_augmentation():
    augmented = Batches(
        numbered(50), 16, PLAIN, seed=1, shuffle=True, augmentation=Augmentation(1, True, 2)
    )
    plain = Batches(numbered(50), 16, PLAIN, seed=1, shuffle=True)
    assert [labels_of(augmented) for _ in range(2)] == [labels_of(plain) for _ in range(2)]


def test_each_augmentation_reaches_the_images():
    ramp = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4).repeat(64, 1, 1, 1)
    part = LabelledImages(ramp, torch.zeros(64).long())

    def first(augmentation: Augmentation | None) -> torch.Tensor:
        # With a mean of 1 no pixel of the image is normalised to 0, so zeros are cutout's.
        statistics = Normalisation((1.0,), (1.0,))
        return next(iter(Batches(part, 64, statistics, augmentation=augmentation)))[0]

    plain = first(None)
    assert not torch.equal(first(Augmentation(padding=1)), plain)
    assert (first(Augmentation(padding=1)) == -1).any()
    flipped = first(Augmentation(flip=True))
    assert torch.equal(flipped.sort(3).values, plain)
    assert not torch.equal(flipped, plain)
    hidden = first(Augmentation(cutout=2)) == 0
    assert hidden.flatten(1).any(1).all()
    assert not (plain == 0).any()


def test_channels_last():
    part = LabelledImages(some_images(4), torch.zeros(4).long())
    statistics = Normalisation.of(part.images)
    images, _ = next(iter(Batches(part, 4, statistics, channels_last=True)))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, next(iter(Batches(part, 4, statistics)))[0])


def training(search, **options) -> Batches:
    options = {"shuffle": True, "drop_last": True, "seed": 5, **options}
    augmentation = Augmentation(padding=1, flip=True, cutout=3)
    return Batches(search.train, 256, search.normalisation, augmentation=augmentation, **options)


@pytest.mark.parametrize("batches_before", [0, 1, 3, 4, 5, 11])
def test_resumed_batches_are_exactly_the_same(search, batches_before):
    uninterrupted = training(search)
    stream = uninterrupted.forever()
    for _ in range(batches_before):
        next(stream)
    file = io.BytesIO()
    torch.save(uninterrupted.state_dict(), file)
    file.seek(0)
    resumed = training(search, seed=123)
    resumed.load_state_dict(torch.load(file))
    assert resumed.epoch == batches_before // 4
    again = resumed.forever()
    for _ in range(9):
        (images, labels), (others, other_labels) = next(stream), next(again)
        assert torch.equal(labels, other_labels)
        assert torch.equal(images, others)


def test_state_is_not_changed_by_later_batches(search):
    batches = training(search)
    state = batches.state_dict()
    first = labels_of(batches)
    labels_of(batches)
    batches.load_state_dict(state)
    assert labels_of(batches) == first


def test_state_of_other_batches_is_refused(search):
    state = training(search).state_dict()
    with pytest.raises(UserError, match="batch_size 256, these have 32"):
        Batches(search.train, 32, search.normalisation).load_state_dict(state)
    with pytest.raises(UserError, match="samples 1150, these have 288"):
        Batches(search.validation, 256, search.normalisation).load_state_dict(state)


def test_a_loop_left_early_is_continued():
    batches = Batches(numbered(6), 2, PLAIN)
    for _, labels in batches:
        assert labels.tolist() == [0, 1]
        break
    assert (labels_of(batches), batches.epoch) == ([[2, 3], [4, 5]], 1)


def test_epoch_is_over_in_the_body_of_its_last_batch():
    batches = Batches(numbered(4), 2, PLAIN)
    assert [batches.epoch for _ in batches] == [0, 1]
    assert labels_of(batches) == [[0, 1], [2, 3]]


def test_forever_goes_through_the_epochs():
    stream = Batches(numbered(3), 2, PLAIN).forever()
    assert labels_of(next(stream) for _ in range(4)) == [[0, 1], [2], [0, 1], [2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "at least 1 .got 0"),
        ({"batch_size": 2, "indices": torch.tensor([], dtype=torch.int64)}, "1 image .got 0"),
        ({"batch_size": 11, "drop_last": True}, "batch_size 11 is larger than the 10 images"),
    ],
)
def test_batches_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        Batches(numbered(10), normalisation=PLAIN, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_order_is_the_same_on_a_gpu_and_augmentation_resumes_there(search):
    there = training(search.to("cuda"))
    assert labels_of(there) == labels_of(training(search))
    state = there.state_dict()
    first = [images for images, _ in there]
    there.load_state_dict(state)
    for images, others in zip(first, there, strict=True):
        assert images.is_cuda
        assert torch.equal(images, others[0])
