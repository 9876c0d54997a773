"""Whole searches through Ray Tune: budgets, seeds, early stops, crashes, failures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ray import PlacementGroupID
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from sase_ray.cluster.slots import TrialResources
from sase_ray.execution.failures import check_storage
from sase_ray.execution.observer import Observer
from sase_ray.execution.one_search import run_search
from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.errors import UserError
from trainables.persistence.resumable import Kept
from trainables.persistence.store import StorageError, Store

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Run a search with Tune's files in a relative folder, which must be empty at the end."""
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / "storage"

    def run(name, task, options=None, **settings):
        try:
            return run_search(make_strategy(name, options), task, storage="storage", **settings)
        finally:
            assert not storage.exists() or not list(storage.iterdir())

    yield run
    # Tune may leave a reservation behind that came while it ended. A search of a run is an actor,
    # which takes its reservations along; here they would be this process's, for all tests.
    for name, row in placement_group_table().items():
        if row["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(name)))


def tried(outcome):
    """Trials in the order they began: genotype and epochs."""
    trials: dict[str, list] = {}
    for row in outcome.history.evaluations:
        trials.setdefault(row["trial"], []).append((row["genotype"], row["epoch"]))
    return [(rows[-1][0], [epoch for _, epoch in rows]) for rows in trials.values()]


def learned(outcome):
    """The evaluations without names of trials and without clocks."""
    left_out = {"trial", "train_seconds", "search_seconds", "peak_memory_mib"}
    return [
        {key: value for key, value in row.items() if key not in left_out}
        for row in outcome.history.evaluations
    ]


def test_random_trains_as_many_full_trials_as_the_budget_pays(make_job, search):
    job = make_job(epochs=2)
    heard = []
    observer = Observer()
    observer.evaluated = lambda search, row: heard.append(row)
    outcome = search("random", SearchTask(job, 3 * 232 + 231), observers=[observer])
    assert [epochs for _, epochs in tried(outcome)] == [[1, 2]] * 3
    assert outcome.samples == 3 * 232
    assert heard == outcome.history.evaluations
    assert heard[-1]["search_samples"] == 3 * 232
    assert outcome.seconds == pytest.approx(heard[-1]["search_seconds"])
    # The answer is the trial with the smallest validation loss.
    final = [row for row in heard if row["epoch"] == 2]
    best = min(final, key=lambda row: row["val_loss"])
    assert str(outcome.genotype) == best["genotype"]
    assert outcome.ranking[0][1] == best["val_loss"]
    assert heard[-1]["incumbent"] == best["genotype"]


def test_asha_stops_trials_early_and_so_begins_more_in_the_same_budget(make_job, search):
    job = make_job(epochs=4)
    budget = 8 * job.samples_per_trial
    outcome = search("asha", SearchTask(job, budget))
    lengths = [len(epochs) for _, epochs in tried(outcome)]
    assert len(lengths) > 8, "random search begins 8"
    assert max(lengths) == 4
    assert min(lengths) < 4
    assert outcome.samples <= budget
    last = {row["trial"]: row for row in outcome.history.evaluations}
    full = [row for row in last.values() if row["epoch"] == 4]
    stopped = [row for row in outcome.history.trials() if row["status"] == "stopped"]
    assert len(stopped) == len(last) - len(full)
    assert str(outcome.genotype) == min(full, key=lambda row: row["val_loss"])["genotype"]


@pytest.mark.parametrize("name", [pytest.param("tpe", marks=pytest.mark.full), "tpe-asha"])
def test_tpe_is_reproduced_by_its_seed(name, make_job, search):
    task = SearchTask(make_job(epochs=2, train=48), budget=6 * 136)
    options = {"startup_trials": 3}
    first, second = (search(name, task, options) for _ in range(2))
    assert len(tried(first)) >= 6
    assert tried(first) == tried(second)
    assert learned(first) == learned(second)


def test_another_seed_tries_other_genotypes(make_job, search):
    task = SearchTask(make_job(epochs=1, train=48), budget=4 * 68)
    for name in ("tpe", "random"):
        plans = [
            make_strategy(name).plan(replace(task, job=replace(task.job, seed=seed)))
            for seed in (0, 1, 1)
        ]
        for plan in plans:
            plan.searcher.set_search_properties("val_loss", "min", dict(plan.param_space))
        drawn = [[plan.searcher.suggest(f"t{i}") for i in range(4)] for plan in plans]
        assert drawn[0] != drawn[1]
        assert drawn[1] == drawn[2]


def test_grid_visits_every_genotype_once_and_ends(make_job, search, write_space):
    choices = {"channel_squeeze": ["gap", "gap_std"], "spatial_excite": ["affine", "conv3x3"]}
    job = make_job(write_space(choices), epochs=1)
    outcome = search("grid", SearchTask(job, budget=100_000, metric="val_accuracy"))
    genotypes = [genotype for genotype, _ in tried(outcome)]
    assert sorted(genotypes) == sorted(str(genotype) for genotype in job.space)
    assert outcome.samples == 4 * 116
    scores = [score for _, score in outcome.ranking]
    assert scores == sorted(scores, reverse=True)


MEETING = """
import os, time
from pathlib import Path
from search_spaces.ops import register_op

MARKERS = Path({markers!r})

@register_op("channel_excite", "meeting")
def meeting(z):
    '''A gate that waits until two processes compute it.'''
    (MARKERS / str(os.getpid())).touch()
    end = time.monotonic() + 900
    while len(list(MARKERS.iterdir())) < 2:
        if time.monotonic() > end:
            raise TimeoutError("no other trial ran at the same time")
        time.sleep(0.01)
    return z.sigmoid()
"""


def test_two_trials_at_a_time_keep_within_the_budget(make_job, search, write_space, tmp_path):
    (markers := tmp_path / "markers").mkdir()
    choices = {"refine_excite": ["meeting"], "spatial_excite": ["affine", "conv3x3"]}
    choices |= {"channel_squeeze": ["gap", "gap_std"]}
    path = write_space(choices, MEETING.format(markers=str(markers)))
    budget = 3 * 348 + 100
    outcome = search("random", SearchTask(make_job(path, epochs=3), budget), concurrency=2)
    assert outcome.history.failures == {}
    assert [len(epochs) for _, epochs in tried(outcome)] == [3] * 3
    assert outcome.samples == 3 * 348


@pytest.mark.parametrize(("name", "passes"), [("darts", 2), ("darts-2nd", 5)])
def test_darts_ends_with_a_ranking_within_its_budget(name, passes, make_job, search):
    job = make_job()
    outcome = search(name, SearchTask(job, budget=passes * 16 * 5 + 3), {"batch_size": 16})
    assert outcome.samples == passes * 16 * 5
    assert len({genotype for genotype, _ in outcome.ranking}) == 20
    assert all(genotype in job.space for genotype, _ in outcome.ranking)
    first, last = outcome.history.evaluations
    assert str(outcome.genotype) == last["genotype"] == last["ranking"][0][0]
    assert first["alpha"] != last["alpha"]


KILLER = """
import os, signal
from pathlib import Path
import torch
from torch import nn
from search_spaces.ops import register_op

MARKER = Path({marker!r})

@register_op("channel_excite", "killer")
class Killer(nn.Module):
    '''A gate that once, in the middle of the second epoch, kills its process.'''
    def __init__(self, channels, size, *, affine=True, device=None, dtype=None):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.passes = 0
    def forward(self, z):
        self.passes += self.training
        if self.passes == 9 and not MARKER.exists():
            MARKER.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.sigmoid(self.scale * z)
"""


@pytest.mark.parametrize("name", ["random", pytest.param("darts", marks=pytest.mark.full)])
def test_a_killed_process_is_replaced_and_the_search_ends_as_if_undisturbed(
    name, make_job, search, write_space, tmp_path
):
    marker = tmp_path / "killed"
    choices = {"refine_excite": ["killer"], "spatial_excite": ["affine", "conv3x3"]}
    path = write_space(choices, KILLER.format(marker=str(marker)))
    job = make_job(path, epochs=3)
    # Six steps an epoch of a trial, so the ninth pass is in the second; DARTS makes two passes
    # in each of three steps.
    options = {"batch_size": 16} if name == "darts" else None
    task = SearchTask(job, budget=2 * 348)
    killed = search(name, task, options)
    assert marker.exists(), "the process was killed"
    undisturbed = search(name, task, options)
    assert learned(killed) == learned(undisturbed)
    assert killed.ranking == undisturbed.ranking
    assert killed.history.failures == {}
    assert killed.samples == undisturbed.samples <= 2 * 348


BROKEN = """
from search_spaces.ops import register_op

@register_op("channel_excite", "broken")
def broken(z):
    '''A gate that cannot be computed.'''
    raise ValueError("this operation is broken")
"""


def test_a_genotype_that_fails_is_recorded_and_the_others_go_on(
    make_job, search, write_space, monkeypatch
):
    monkeypatch.setattr("sase_ray.execution.one_search.MAX_FAILURES", 0)  # it would only fail again
    path = write_space({"refine_excite": ["affine", "broken"]}, BROKEN)
    job = make_job(path, epochs=1)
    outcome = search("grid", SearchTask(job, budget=10_000))
    good, bad = job.space
    assert [genotype for genotype, _ in outcome.ranking] == [good]
    (reason,) = outcome.history.failures.values()
    assert "this operation is broken" in reason
    (failed,) = (row for row in outcome.history.trials() if row["status"] == "failed")
    assert failed["reason"] == reason
    assert bad != good


def test_a_search_whose_every_trial_fails_ends_and_says_why(
    make_job, search, write_space, monkeypatch
):
    monkeypatch.setattr("sase_ray.execution.one_search.MAX_FAILURES", 0)
    job = make_job(write_space({"refine_excite": ["broken"]}, BROKEN), epochs=1)
    with pytest.raises(UserError, match="this operation is broken"):
        search("random", SearchTask(job, budget=116))


FORGETFUL = """
import torch
from torch import nn
from search_spaces.ops import register_op
from trainables.hardware.device import gpu_share

@register_op("channel_excite", "hungry")
class Hungry(nn.Module):
    '''A gate that from the second epoch on needs more than {room} of a GPU.'''
    def __init__(self, channels, size, *, affine=True, device=None, dtype=None):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("passes", torch.tensor(0))
    def forward(self, z):
        self.passes += self.training
        if self.passes > 4 and gpu_share() <= {room}:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return torch.sigmoid(self.scale * z)
"""


class Heard(Observer):
    """Keeps notes, and trials that ended."""

    def __init__(self):
        self.notes, self.ended = [], []

    def noted(self, text):
        self.notes.append(text)

    def trial_ended(self, search, trial, reason):
        self.ended.append((trial, reason))


@pytest.mark.parametrize("name", [pytest.param("asha", marks=pytest.mark.full), "darts"])
def test_a_trial_without_room_on_its_gpu_goes_on_with_a_larger_share(
    name, make_job, search, write_space
):
    choices = {"refine_excite": ["affine", "hungry"], "spatial_excite": ["affine", "conv3x3"]}
    path = write_space(choices, FORGETFUL.format(room=0.25))
    task = SearchTask(make_job(path, epochs=3), budget=2 * 348)
    options = {"batch_size": 16} if name == "darts" else None
    heard = Heard()
    disturbed = search(name, task, options, resources=TrialResources(gpus=0.25), observers=[heard])
    assert heard.notes
    assert "ran out of memory on 0.25 GPU" in heard.notes[0]
    plenty = search(name, task, options, resources=TrialResources(gpus=0.5))
    assert learned(disturbed) == learned(plenty)
    assert disturbed.ranking == plenty.ranking
    assert disturbed.samples == plenty.samples
    trials = [trial for trial, _ in heard.ended]
    assert len(set(trials)) == len(trials), "each has ended once"


@pytest.mark.parametrize(
    ("gpus", "told"), [(0.25, 0.5), pytest.param(1.0, 1.0, marks=pytest.mark.full)]
)
def test_a_trial_that_fits_no_share_fails_with_that_reason(
    gpus, told, make_job, search, write_space, monkeypatch
):
    monkeypatch.setattr("sase_ray.execution.one_search.MAX_FAILURES", 0)
    path = write_space({"refine_excite": ["hungry", "affine"]}, FORGETFUL.format(room=1))
    task = SearchTask(make_job(path, epochs=2), budget=2 * 232)
    outcome = search("grid", task, resources=TrialResources(gpus=gpus))
    assert list(outcome.history.failures.values()) == [f"out of memory on {told:g} GPU"]
    assert "hungry" not in str(outcome.genotype)


HANGING = """
import time
from search_spaces.ops import register_op

@register_op("channel_excite", "hanging")
def hanging(z):
    '''A gate that takes for ever.'''
    time.sleep(1000)
"""


def test_a_trial_that_hangs_fails_at_its_time_limit_and_the_others_go_on(
    make_job, search, write_space, tmp_path
):
    path = write_space({"refine_excite": ["hanging", "affine"]}, HANGING)
    task = SearchTask(make_job(path, epochs=2), budget=2 * 232)
    outcome = search("grid", task, kept=Kept(Store(tmp_path / "kept"), seconds=3))
    assert list(outcome.history.failures.values()) == ["time limit: more than 3 s, in epoch 1"]
    assert len(outcome.ranking) == 1


@pytest.mark.full
def test_a_storage_that_fails_ends_the_search_and_blames_no_genotype(make_job, search, tmp_path):
    (tmp_path / "kept").write_text("a file, where a folder is needed")
    heard = Heard()
    with pytest.raises(Exception, match=r"kept.*cannot be") as raised:
        search(
            "random",
            SearchTask(make_job(epochs=2), budget=464),
            kept=Kept(Store(tmp_path / "kept")),
            observers=[heard],
        )
    with pytest.raises(StorageError, match=r"kept.*cannot be"):
        check_storage(raised.value)
    assert heard.ended == []


NOT_A_NUMBER = """
from search_spaces.ops import register_op

@register_op("channel_excite", "not_a_number")
def not_a_number(z):
    '''A gate that is not a number.'''
    return z * float("nan")
"""


def test_a_genotype_that_diverges_is_ranked_last(make_job, search, write_space):
    path = write_space({"refine_excite": ["affine", "not_a_number", "conv3"]}, NOT_A_NUMBER)
    job = make_job(path, epochs=2)
    outcome = search("grid", SearchTask(job, budget=10_000))
    assert len(outcome.ranking) == 3
    assert "not_a_number" in str(outcome.ranking[-1][0])
    (row,) = (row for row in outcome.history.trials() if row["status"] == "diverged")
    assert "not finite" in row["reason"]
    assert row["epoch"] == 1, "it ended at once"
    assert outcome.samples == 5 * 116


def test_a_budget_that_is_too_small_starts_nothing(make_job, search, tmp_path):
    with pytest.raises(UserError, match="232"):
        search("random", SearchTask(make_job(epochs=2), budget=231))
    assert not (tmp_path / "storage").exists()
