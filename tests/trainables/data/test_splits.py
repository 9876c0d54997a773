"""Splits: disjoint, stratified, fixed by the seed; a search never holds a test image."""

import pickle

import pytest
import torch

from search_spaces.errors import UserError
from trainables.data import (
    Augmentation,
    ImageData,
    LabelledImages,
    final_data,
    load_dataset,
    make_splits,
    search_data,
)
from trainables.data.splits import stratified_order


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def numbered(labels: torch.Tensor, test: int | None = None) -> ImageData:
    """Build a set whose development image i holds the number i, and test image i 60000 + i."""

    def images(first: int, count: int) -> torch.Tensor:
        number = torch.arange(first, first + count)
        return torch.stack([number // 256, number % 256], 1).to(torch.uint8).view(count, 2, 1, 1)

    part = LabelledImages(images(60000, test), torch.arange(test) % 3) if test else None
    return ImageData(
        images(0, len(labels)),
        labels,
        ("a", "b", "c"),
        part,
        name="numbered",
        augmentation=Augmentation(),
    )


def numbers(part: LabelledImages) -> list[int]:
    high, low = part.images.long().flatten(1).unbind(1)
    return (high * 256 + low).tolist()


def test_parts_are_disjoint_and_cover_the_set(digits):
    splits = make_splits(digits, seed=3)
    together = torch.cat([splits.train, splits.validation, splits.test])
    assert together.sort().values.tolist() == list(range(1797))
    assert splits.test_part == "held out"
    assert splits.sizes == {"train": 1150, "validation": 288, "test": 359}


def test_parts_have_the_classes_in_proportion(digits):
    splits = make_splits(digits, seed=3, train_size=500, validation_size=200)
    whole = torch.bincount(digits.labels) / len(digits)
    for indices in (splits.train, splits.validation, splits.test):
        counts = torch.bincount(digits.labels[indices], minlength=10)
        assert (counts - whole * len(indices)).abs().max() <= 2


def test_balanced_classes_stay_exactly_balanced():
    labels = torch.arange(300) % 3
    order = stratified_order(labels, seed=5)
    assert sorted(order.tolist()) == list(range(300))
    for size in (3, 30, 150):
        assert torch.bincount(labels[order[:size]]).tolist() == [size // 3] * 3
        assert torch.bincount(labels[order[-size:]]).tolist() == [size // 3] * 3


def test_rare_class_is_in_each_part():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)[torch.randperm(1000)]
    splits = make_splits(numbered(labels), seed=0)
    for indices in (splits.train, splits.validation, splits.test):
        assert (labels[indices] == 2).any()


def test_same_seed_same_splits_other_seed_others(digits):
    first, again, other = (make_splits(digits, seed) for seed in (1, 1, 2))
    assert first.sha256 == again.sha256 != other.sha256
    assert torch.equal(first.train, again.train)
    assert set(first.train.tolist()) != set(other.train.tolist())


def test_held_out_test_part_is_the_same_for_every_seed(digits):
    assert torch.equal(make_splits(digits, 1).test, make_splits(digits, 2, 100, 50).test)


def test_digest_is_the_one_that_another_process_wrote_down(digits):
    # Results name their splits by this digest: if it changes, they can no longer be matched.
    digest = "5177f836b765fba0a158c609a25c8f8fd1b1f5397a764e82aad0532311d22e79"
    assert make_splits(digits, 4, train_size=300).sha256 == digest


def test_digest_tells_parts_apart(digits):
    small = make_splits(digits, 0, train_size=100, validation_size=50)
    assert small.sha256 != make_splits(digits, 0, train_size=101, validation_size=50).sha256
    assert small.sha256 != make_splits(digits, 0, train_size=100, validation_size=51).sha256


def test_smaller_parts_are_contained_in_larger_ones(digits):
    full = make_splits(digits, seed=7)
    large = make_splits(digits, seed=7, train_size=600, validation_size=200)
    small = make_splits(digits, seed=7, train_size=90, validation_size=200)
    tight = make_splits(digits, seed=7, train_size=600, validation_size=20)
    assert torch.equal(small.train, large.train[:90])
    assert torch.equal(large.train, full.train[:600])
    assert torch.equal(tight.validation, large.validation[:20])
    assert torch.equal(tight.train, large.train)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train_size": 0}, "train_size must be at least 1 image .got 0"),
        ({"validation_size": -1}, "validation_size must be at least 1"),
        ({"train_size": 1400}, "1438 images outside .* train_size 1400 . validation_size 288"),
    ],
)
def test_impossible_sizes(digits, sizes, message):
    with pytest.raises(UserError, match=message):
        make_splits(digits, 0, **sizes)


def test_description_can_be_written_with_results(digits):
    splits = make_splits(digits, 6, train_size=100)
    assert splits.describe() == {
        "seed": 6,
        "train": 100,
        "validation": 288,
        "test": 359,
        "test_part": "held out",
        "sha256": splits.sha256,
    }


@pytest.mark.parametrize("official", [None, 40])
def test_search_holds_no_test_image(official):
    data = numbered(torch.arange(600) % 3, official)
    splits = make_splits(data, seed=0)
    assert splits.test_part == ("official" if official else "held out")
    test = set(numbers(final_data(data, splits).test))
    search = search_data(data, splits)
    seen = numbers(search.train) + numbers(search.validation)
    assert len(test) == (official or 120)
    assert not test & set(seen)
    assert len(set(seen)) == len(seen) == (600 if official else 480)
    # Nor behind a tensor: each has a storage of its own, of its own size, and pickles as such.
    for part in (search.train, search.validation):
        assert part.images.untyped_storage().nbytes() == part.images.numel()
        assert part.images.untyped_storage().data_ptr() != data.images.untyped_storage().data_ptr()
    assert not hasattr(search, "test")
    whole = data.images.numel() + 8 * len(data)
    assert len(pickle.dumps(search)) < whole + 20_000


def test_final_data_trains_on_all_but_test():
    data = numbered(torch.arange(600) % 3, 40)
    final = final_data(data, make_splits(data, seed=0))
    assert sorted(numbers(final.train)) == list(range(600))
    assert numbers(final.test) == list(range(60000, 60040))
    assert final.test.labels.tolist() == data.test.labels.tolist()


def test_views_keep_images_with_their_labels():
    labels = torch.randint(3, (600,), generator=torch.Generator().manual_seed(0))
    data = numbered(labels)
    splits = make_splits(data, seed=0)
    for view in (search_data(data, splits), final_data(data, splits)):
        for part in (view.train, getattr(view, "validation", None) or view.test):
            assert part.labels.tolist() == labels[numbers(part)].tolist()


def test_view_says_what_it_is(digits):
    splits = make_splits(digits, 0)
    search = search_data(digits, splits).to("cpu")
    assert (search.name, search.num_classes, search.shape) == ("digits", 10, (1, 8, 8))
    assert search.splits == splits.describe()
    assert search.augmentation == Augmentation(padding=1)


def test_statistics_are_of_the_train_part_alone(digits):
    splits = make_splits(digits, 0, train_size=200)
    pixels = digits.images[splits.train].double() / 255
    found = search_data(digits, splits).normalisation
    assert found.mean == pytest.approx((pixels.mean().item(),), rel=1e-9)
    assert found.std == pytest.approx((pixels.std(correction=0).item(),), rel=1e-9)
    pixels = digits.images[torch.cat([splits.train, splits.validation])].double() / 255
    assert final_data(digits, splits).normalisation.mean == pytest.approx((pixels.mean().item(),))


def test_halves_are_disjoint_stratified_and_fixed_by_the_seed(digits):
    search = search_data(digits, make_splits(digits, 0, train_size=1001))
    first, second = search.halves(seed=1)
    assert (len(first), len(second)) == (501, 500)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(1001))
    counts = [torch.bincount(search.train.labels[half], minlength=10) for half in (first, second)]
    assert (counts[0] - counts[1]).abs().max() <= 2
    assert torch.equal(first, search.halves(seed=1)[0])
    assert not torch.equal(first, search.halves(seed=2)[0])
