"""The parts of a comparison, and the mistakes that are found before anything is started."""

from __future__ import annotations

import pytest
import torch

from sase_ray.commands.search import search
from sase_ray.config import load_config
from sase_ray.execution.experiment import Experiment
from search_spaces.errors import UserError
from tests.trainables.data.image_writers import random_image, write_image


def build(**overrides):
    return Experiment.of(load_config(overrides=overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"strategies": ["randon"]}, "unknown strategy 'randon': did you mean 'random'"),
        ({"baselines": ["cbma"]}, "unknown baseline 'cbma': did you mean 'cbam'"),
        ({"dataset": "digit"}, "'digit': did you mean 'digits'"),
        ({"space": "sase_tny"}, "unknown search space 'sase_tny': did you mean 'sase_tiny'"),
        ({"backbone": {"name": "resnet9"}}, "'resnet9'"),
        ({"backbone": {"options": {"widht": 3}}}, "'widht'"),
        ({"strategies": ["random", "darts", "random"]}, "'random' is named twice"),
        ({"baselines": ["se", "se"]}, "'se' is named twice"),
        ({"strategy_options": {"tpe": {}}, "strategies": ["random"]}, "'tpe'"),
        ({"strategy_options": {"darts": {"alpha_rl": 1}}, "strategies": ["darts"]}, "alpha_lr"),
        ({"strategy_options": {"darts": {"lr": "x"}}, "strategies": ["darts"]}, "lr"),
        ({"budget": 100}, "budget 100 is too small"),
        ({"budget": 100, "strategies": ["darts"]}, "budget 100 is too small"),
        ({"data": {"train_size": 10**6}}, "1000000|1,000,000"),
        ({"final": {"train_size": 100}}, "final.train_size 100 must exceed"),
        ({"final": {"workers": 9, "batch_size": 8}}, "final.workers is 9, .* 8 images"),
        ({"space": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        build(**overrides)
    assert "\n" not in str(caught.value)


def test_a_single_search_refuses_options_of_a_strategy_that_is_none():
    with pytest.raises(UserError, match="unknown strategy 'fbn': did you mean 'fbnet'"):
        search("fbnet", dataset="digits", strategy_options={"fbn": {"decay": 1}})


def test_a_space_with_an_operation_that_nobody_registered_is_refused(write_space):
    with pytest.raises(UserError, match="median"):
        build(space=str(write_space({"channel_squeeze": ["median"]})))


def _images(part):
    return {image.numpy().tobytes() for image in part.images}


def test_searches_get_no_test_image_and_final_training_gets_the_same_development_images(digits):
    setup = build(dataset="digits").problem
    train, validation = _images(setup.search_data.train), _images(setup.search_data.validation)
    test, final = _images(setup.final_data.test), _images(setup.final_data.train)
    # Any two of scikit-learn's digits differ, so that bytes identify them.
    everything = {image.numpy().tobytes() for image in digits.images}
    assert len(everything) == len(digits.images)
    assert not test & (train | validation | final)
    assert not train & validation
    assert final == train | validation
    assert test | final == everything
    assert setup.search_data.normalisation is not None


def test_notes_on_images_are_those_of_the_data_and_of_the_set_that_the_host_is_trained_on(tmp_path):
    for root in ("own", "source"):
        for seed in range(8):
            write_image(tmp_path / f"{root}/train/{'ab'[seed % 2]}/{seed}.png", random_image(seed))
        (tmp_path / root / "train/a/.hidden.png").write_text("")
    write_image(tmp_path / "own/test/a/copy.png", random_image(0))
    tiny = {"options": {"image_size": 8}}
    data = {"root": str(tmp_path / "own"), **tiny}
    source = {"dataset": "imagefolder", "root": str(tmp_path / "source"), **tiny}
    host = {"epochs": 1, "source": source}
    notes = build(dataset="imagefolder", data=data, host=host).problem.notes
    assert len(notes) == 3
    assert notes[0] == "left out: 1 hidden or system file (.hidden.png)"
    assert notes[1].startswith("duplicates: 1 of 1 test images")
    assert notes[2] == f"host.source: {notes[0]}"


def test_a_task_holds_no_test_image():
    setup = build(dataset="digits")
    test = _images(setup.problem.final_data.test)
    seen, pending, visited = set(), [setup.task(seed=0)], set()
    while pending:
        value = pending.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.dim() == 4:
            seen |= {image.numpy().tobytes() for image in value}
        elif isinstance(value, (list, tuple)):
            pending += value
        elif isinstance(value, dict):
            pending += value.values()
        elif hasattr(value, "__dict__"):
            pending += vars(value).values()
    assert seen, "the walk found the images"
    assert not seen & test


def test_final_seeds_are_shared_by_strategies_and_differ_between_repetitions():
    setup = build(final={"seeds": 3})
    seeds = [list(setup.final_seeds(replicate)) for replicate in range(3)]
    assert [seed for own in seeds for seed in own] == list(range(10_000, 10_009))
    # From none of the initial weights that a search chose by.
    assert not set(range(setup.config.seeds)) & {seed for own in seeds for seed in own}


def test_fewer_final_images_still_hold_all_validation_images():
    settings = {"final": {"train_size": 500}, "data": {"train_size": 200, "validation_size": 100}}
    problem = build(**settings).problem
    final = _images(problem.final_data.train)
    assert len(problem.final_data.train) == 500
    assert _images(problem.search_data.validation) <= final
    assert _images(problem.search_data.train) <= final


def test_a_supernet_is_estimated_to_take_more_memory_than_a_trial_where_one_is_trained():
    alone = build(strategies=["random"], space="sase_tiny").footprints()
    assert alone[0] == alone[1] > 0
    both = build(strategies=["random", "darts"], space="sase_tiny").footprints()
    assert both[0] == alone[0]
    assert both[1] not in (0, both[0])
