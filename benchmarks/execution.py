"""Ways to execute one training step: eager, fused, compiled, and replayed from a CUDA graph.

Also how many kernels a step launches and for which share of it the GPU computes, which says what a
graph or a compiler can gain.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from harness import Row, in_turn, plain_forms, prepare, synchronise
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.genotype import PUBLISHED
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.ops.kernels.mode import fused
from search_spaces.space import SearchSpace
from trainables.training.cuda_graphs import GraphedNetwork
from trainables.training.loop import place
from trainables.training.protocol import TrainingProtocol


@dataclass(frozen=True)
class Case:
    """A host, a batch of images for it, and the space of its supernet."""

    name: str
    spec: NetworkSpec
    batch: int
    space: str = "sase"

    def batch_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return made-up images and labels."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, self.spec.in_channels, *self.spec.input_size)
        images = torch.randn(shape, generator=generator).to(device)
        if device.type == "cuda":
            images = images.to(memory_format=torch.channels_last)
        labels = torch.randint(0, self.spec.num_classes, (self.batch,), generator=generator)
        return images, labels.to(device)


CIFAR = NetworkSpec("resnet20", 10, 3, (32, 32))
SMALL = NetworkSpec("resnet8", 10, 1, (28, 28), {"width": 8, "stem_stride": 2})


def cases(device: torch.device) -> list[Case]:
    if device.type == "cpu":
        return [Case("ResNet-20, 64 images of 32x32", CIFAR, 64)]
    return [
        Case("ResNet-20, 64 images of 32x32", CIFAR, 64),
        Case("ResNet-20, 256 images of 32x32", CIFAR, 256),
        Case("ResNet-8 of width 8, 64 images of 28x28", SMALL, 64, "sase_narrow"),
    ]


def whole_step(forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Evaluate a network and its gradient, at the precision of the training loop."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
        logits = forward(images)
    loss = F.cross_entropy(logits.float(), labels)
    loss.backward()
    return loss.detach()


def rows_of(case: Case, device: torch.device) -> list[Row]:
    space = SearchSpace.load(case.space)
    images, labels = case.batch_on(device)
    alpha = [
        torch.zeros(len(v.choices), device=device, requires_grad=True) for v in space.variables
    ]

    def mixed(supernet: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: supernet(x, Mixture([a.softmax(0) for a in alpha]))

    def prepared(network: nn.Module) -> nn.Module:
        return place(network, TrainingProtocol(), device)

    host, discrete = prepared(case.spec.build()), prepared(case.spec.with_genotype(PUBLISHED))
    supernet = prepared(Supernet(case.spec, space))
    plain = prepared(Supernet(case.spec, space, block=plain_forms().PlainSuperSASE))
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "host": host,
        "host, compiled": torch.compile(copy.deepcopy(host), dynamic=False),
        "block, plain": discrete,
        "block, fused": fused()(discrete.__call__),
        "block, compiled": torch.compile(copy.deepcopy(discrete), dynamic=False),
        "supernet, plain": mixed(plain),
        "supernet, fused": mixed(supernet),
    }
    if device.type == "cuda":
        ways |= {
            "host, CUDA graph": GraphedNetwork(copy.deepcopy(host)),
            "block, plain, CUDA graph": GraphedNetwork(copy.deepcopy(discrete)),
            "block, fused, CUDA graph": fused()(GraphedNetwork(copy.deepcopy(discrete)).__call__),
            "supernet, plain, CUDA graph": mixed(GraphedNetwork(copy.deepcopy(plain))),
            "supernet, fused, CUDA graph": mixed(GraphedNetwork(copy.deepcopy(supernet))),
        }
    actions = {name: partial(whole_step, way, images, labels) for name, way in ways.items()}
    seconds = in_turn(actions, device, repeats=15)
    found = []
    for name, value in seconds.items():
        detail = f"{1e3 * value:.2f} ms"
        if device.type == "cuda":
            kernels, busy = profiled(actions[name], device)
            detail += f", {kernels} kernels, which compute for {100 * busy:.0f}% of it"
        found.append(
            Row(f"{name}; {case.name}", "host", value / seconds["host"], None, "at most", detail)
        )
    return found


def profiled(action: Callable[[], object], device: torch.device) -> tuple[int, float]:
    """Return the number of kernels of an action, and the share of its time that they take."""
    synchronise(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seconds = in_turn({"it": action}, device, repeats=3, warmup=0)["it"]
    kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return len(kernels) // 3, sum(e.self_device_time_total for e in kernels) / 3e6 / seconds


def rows() -> list[Row]:
    device = prepare()
    return [row for case in cases(device) for row in rows_of(case, device)]
