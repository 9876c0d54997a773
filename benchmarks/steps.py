"""Costs of a training step: supernet, discrete block, second order. ResNet-20, 32x32."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from harness import Row, in_turn, plain_forms, prepare
from torch import Tensor, nn
from torch.nn import functional as F

from sase_ray.strategies import OneShot, SearchTask
from sase_ray.strategies.one_shot.darts import DARTS
from sase_ray.strategies.one_shot.darts_2nd import SecondOrderDARTS
from search_spaces.genotype import PUBLISHED
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.ops.kernels.mode import fused
from search_spaces.space import SearchSpace
from trainables.data import SearchData
from trainables.search_job import SearchJob
from trainables.training.loop import Trainer
from trainables.training.loop import place as placed
from trainables.training.protocol import ProxyProtocol, TrainingProtocol

BATCH = 64


def step(forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            logits = forward(images)
        F.cross_entropy(logits.float(), labels).backward()

    return run


def rows() -> list[Row]:
    device = prepare()
    space = SearchSpace.load("sase")
    spec = NetworkSpec("resnet20", 10, 3, (32, 32))
    images = torch.randn(BATCH, 3, 32, 32, device=device)
    labels = torch.randint(0, 10, (BATCH,), device=device)
    if device.type == "cuda":
        images = images.to(memory_format=torch.channels_last)
    alpha = [torch.zeros(7, device=device, requires_grad=True) for _ in space.variables]

    def place(network: nn.Module) -> nn.Module:
        return placed(network, TrainingProtocol(), device)

    def mixed(supernet: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: supernet(x, Mixture([a.softmax(0) for a in alpha]))

    networks: dict[str, Callable[[Tensor], Tensor]] = {
        "host": place(spec.build()),
        "discrete": fused()(place(spec.with_genotype(PUBLISHED)).__call__),
        "supernet": mixed(place(Supernet(spec, space))),
        "plain supernet": mixed(place(Supernet(spec, space, block=plain_forms().PlainSuperSASE))),
    }
    seconds = in_turn(
        {name: step(network, images, labels) for name, network in networks.items()},
        device,
        repeats=15,
    )
    detail = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in seconds.items())
    return [
        Row(
            "supernet step",
            "operation by operation",
            seconds["plain supernet"] / seconds["supernet"],
            2.0,
            "at least",
            detail,
        ),
        Row("supernet step", "host", seconds["supernet"] / seconds["host"], 2.5, "at most", detail),
        Row(
            "discrete block, training step",
            "host",
            seconds["discrete"] / seconds["host"],
            1.35,
            "at most",
            detail,
        ),
        second_order(space, spec, images, labels),
    ]


def search_step(
    strategy: OneShot, space: SearchSpace, spec: NetworkSpec, images: Tensor, labels: Tensor
) -> Callable[[], None]:
    """Return a whole search step: the step of the architecture and the step of the weights."""
    algorithm = strategy.algorithm(task_of(spec, space))
    supernet = algorithm.build_supernet(spec, space, 0).to(images.device)
    trainer = Trainer(
        lambda x: supernet(x, algorithm.mixture()),
        algorithm.weight_parameters(supernet),
        algorithm.protocol,
        1000,
        images.device,
    )
    algorithm.start(supernet, trainer, torch.Generator().manual_seed(0))
    # In the middle of the search, so that schedules that depend on progress are at one half.
    algorithm.begin_step(0.5)

    def run() -> None:
        algorithm.architecture_step((images, labels), (images, labels))
        trainer.step((images, labels))

    return run


def task_of(spec: NetworkSpec, space: SearchSpace) -> SearchTask:
    """Return the task of a search with this network; its data are never read."""
    job = SearchJob(spec, space, cast(SearchData, None), ProxyProtocol(), seed=0)
    return SearchTask(job, budget=1)


def second_order(space: SearchSpace, spec: NetworkSpec, images: Tensor, labels: Tensor) -> Row:
    """Compare whole search steps of first and second order."""
    actions = {
        kind.name: search_step(kind(), space, spec, images, labels)
        for kind in (DARTS, SecondOrderDARTS)
    }
    seconds = in_turn(actions, images.device, repeats=5, warmup=2)
    return Row(
        "second-order DARTS step",
        "first-order",
        seconds["darts-2nd"] / seconds["darts"],
        3.0,
        "at most",
        ", ".join(f"{name} {1e3 * value:.0f} ms" for name, value in seconds.items()),
    )
