"""Final training by several workers: what one worker computes, whatever happens to one of them."""

from __future__ import annotations

import socket
import tempfile
import time

import pytest
import ray
import torch
import torch.distributed as dist
from torch import nn

from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from trainables.data import final_data, make_splits
from trainables.final import distributed
from trainables.final.distributed import check_workers, train_final_together
from trainables.final.team import PartOfBatches, Team
from trainables.final.training import FinalJob, train_final
from trainables.training.loop import training_batches
from trainables.training.protocol import TrainingProtocol

WITH_COV = "cov-fc-affine-cov-gap-conv3x3_x2"

CLOSE = 1e-4
"""Of losses, relative. Measured: 3e-7, from float32 sums in another order."""


@pytest.fixture(scope="module")
def data(digits):
    return final_data(digits, make_splits(digits, seed=0, train_size=96, validation_size=40))


@pytest.fixture
def make_final(make_job):
    def make(module=WITH_COV, *, baseline=False, space="sase", **protocol):
        settings = {"epochs": 2, "batch_size": 16, "label_smoothing": 0.1, **protocol}
        return FinalJob(
            network=make_job().network,
            space=SearchSpace.load(space),
            module=module,
            baseline=baseline,
            protocol=TrainingProtocol(**settings),
            seed=0,
        )

    return make


@pytest.fixture
def together(ray_cluster, data, tmp_path, monkeypatch):
    """Train with two workers, and leave no file."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    def train(job):
        try:
            return train_final_together(job, ray.put(data), workers=2, cpus=1, gpu=False)
        finally:
            assert not list(folder.iterdir())

    return train


def assert_as_alone(result, alone):
    assert list(result) == list(alone)
    assert not alone["diverged"]
    for key in ("train_loss", "test_loss"):
        assert result[key] == pytest.approx(alone[key], rel=CLOSE)
    exact = ("samples", "diverged", "reason", "test_accuracy")
    assert {key: result[key] for key in exact} == {key: alone[key] for key in exact}


@pytest.mark.parametrize("size", [2, 3])
def test_the_parts_of_a_batch_are_the_batch_in_its_order(size, data, make_final):
    device, protocol = torch.device("cpu"), make_final(augment=True).protocol

    def batches():
        return training_batches(data, protocol, 7, device)

    whole = batches()
    parts = [PartOfBatches(batches(), Team(rank, size)) for rank in range(size)]
    for _epoch in range(2):
        for (images, labels), *of_workers in zip(whole, *parts, strict=True):
            lengths = [len(own) for _, own in of_workers]
            assert max(lengths) - min(lengths) <= 1
            assert torch.equal(torch.cat([own for own, _ in of_workers]), images)
            assert torch.equal(torch.cat([own for _, own in of_workers]), labels)


def test_more_workers_than_images_of_a_batch_are_refused():
    with pytest.raises(UserError, match=r"final.workers is 5, .* 4 images: .* 4 or less"):
        check_workers(5, 4, nn.Identity())
    check_workers(4, 4, nn.Identity())


CASES = {
    "cov": {},
    "batch-that-does-not-divide": {"batch_size": 15},
    "hand-designed": {"module": "se", "baseline": True},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "epochs": 1},
    "diverges": {"lr": 1e6, "clip": None},
}


def _process(rank, port, folder, jobs, data):
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    results = {name: train_final(job, data, team=Team.joined()) for name, job in jobs.items()}
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_train_as_one(make_final, data, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = {name: make_final(**case) for name, case in CASES.items()}
    torch.multiprocessing.spawn(_process, args=(port, tmp_path, jobs, data), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, job in jobs.items():
        alone = train_final(job, data)
        for result in (first[name], second[name]):
            assert list(result) == list(alone)
            if name == "diverges":
                assert result["diverged"]
                assert result["reason"].startswith("training loss")
                assert result["test_accuracy"] == 0.0
            else:
                assert_as_alone(result, alone)


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
def test_ray_train_gives_the_same_and_counts_the_seconds_of_all(make_final, data, together):
    began = time.perf_counter()
    result = together(make_final())
    took = time.perf_counter() - began
    alone = train_final(make_final(), data)
    assert_as_alone(result, alone)
    assert 0 < result["train_seconds"] < 2 * took


MORTAL = """
import os, signal
from pathlib import Path
import torch
import torch.distributed as dist
from search_spaces.ops import register_op

HERE = Path({folder!r})
steps = 0

@register_op("channel_excite", "mortal")
def mortal(z):
    '''A gate that kills the second worker in its tenth step, once.'''
    global steps
    steps += torch.is_grad_enabled()
    if dist.is_initialized() and dist.get_rank() == 1 and steps >= 30:
        try:
            (HERE / "died").touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return torch.sigmoid(z)
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.full
def test_a_worker_that_is_killed_leaves_the_result_as_it_is(
    make_final, data, together, write_space, tmp_path
):
    space = write_space({"channel_excite": ["mortal"]}, MORTAL.format(folder=str(tmp_path)))
    genotype = str(next(iter(SearchSpace.load(space))))
    job = make_final(genotype, space=space)
    result = together(job)
    assert (tmp_path / "died").exists()
    assert_as_alone(result, train_final(job, data))


GRUMPY = """
from search_spaces.ops import register_op

@register_op("channel_excite", "grumpy")
def grumpy(z):
    '''A gate that never works.'''
    raise RuntimeError("I do not\\nwant to")
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.full
def test_a_training_that_fails_every_time_says_why(make_final, together, write_space, monkeypatch):
    monkeypatch.setattr(distributed, "MAX_FAILURES", 0)
    space = write_space({"channel_excite": ["grumpy"]}, GRUMPY)
    job = make_final(str(next(iter(SearchSpace.load(space)))), space=space)
    with pytest.raises(RuntimeError, match=r"^want to$"):
        together(job)
