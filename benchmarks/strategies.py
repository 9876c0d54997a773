"""Costs of one step of each search inside a supernet. ResNet-20, 32x32, batches of 64 for all."""

from __future__ import annotations

import torch
from harness import Row, in_turn, prepare
from steps import BATCH, search_step, step

from sase_ray.strategies import OneShot
from sase_ray.strategies.catalogue import make_strategy, strategies
from search_spaces.network import NetworkSpec
from search_spaces.space import SearchSpace


def rows() -> list[Row]:
    device = prepare()
    space = SearchSpace.load("sase")
    spec = NetworkSpec("resnet20", 10, 3, (32, 32))
    images = torch.randn(BATCH, 3, 32, 32, device=device)
    labels = torch.randint(0, 10, (BATCH,), device=device)
    actions = {"host": step(spec.build().to(device), images, labels)}
    for name, kind in strategies().items():
        if issubclass(kind, OneShot):
            strategy = make_strategy(name)
            assert isinstance(strategy, OneShot)
            actions[name] = search_step(strategy, space, spec, images, labels)
    seconds = in_turn(actions, device, repeats=5, warmup=2)
    host = seconds.pop("host")
    return [
        Row(
            f"search step of {name}",
            "host, training step",
            value / host,
            None,
            "at most",
            f"{1e3 * value:.0f} ms, host {1e3 * host:.0f} ms",
        )
        for name, value in seconds.items()
    ]
