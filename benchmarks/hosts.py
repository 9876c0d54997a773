"""The published block in ResNet-50 at 224x224, compared with timm's CBAM and SE."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial

import torch
from harness import Row, in_turn, prepare
from torch.nn import functional as F

from search_spaces.genotype import PUBLISHED
from search_spaces.network import NetworkSpec
from search_spaces.ops.kernels.mode import fused
from trainables.training.loop import place
from trainables.training.protocol import TrainingProtocol


def rows() -> list[Row]:
    device = prepare()
    batch = 64 if device.type == "cuda" else 4
    spec = NetworkSpec("resnet50", 1000, 3, (224, 224))
    images = torch.randn(batch, 3, 224, 224, device=device)
    labels = torch.randint(0, 1000, (batch,), device=device)
    if device.type == "cuda":
        images = images.to(memory_format=torch.channels_last)
    networks = {"ours": spec.with_genotype(PUBLISHED), "plain": spec.with_genotype(PUBLISHED)}
    networks |= {name: spec.with_baseline(name) for name in ("cbam", "se")}
    networks = {name: place(n, TrainingProtocol(), device) for name, n in networks.items()}
    for name in ("plain", "cbam", "se"):
        compiled = torch.compile(copy.deepcopy(networks[name]), dynamic=False)
        networks[f"{name}, compiled"] = compiled
    found = []
    for phase in ("training", "inference"):

        def run(name: str, training: bool = phase == "training") -> None:
            network = networks[name].train(training)
            precision = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
            mode = fused() if name == "ours" else nullcontext()
            with mode, precision, torch.set_grad_enabled(training):
                logits = network(images)
            if training:
                F.cross_entropy(logits.float(), labels).backward()

        seconds = in_turn(
            {name: partial(run, name) for name in networks},
            device,
            repeats=7,
            warmup=2,
        )
        detail = ", ".join(f"{name} {1e3 * value:.0f} ms" for name, value in seconds.items())
        for own, other, target in (
            ("ours", "cbam", 1.0),
            ("ours", "se", 1.15),
            ("plain", "cbam", None),
            ("plain", "se", None),
            ("plain, compiled", "cbam, compiled", None),
            ("plain, compiled", "se, compiled", None),
        ):
            kind = "fused" if own == "ours" else own
            found.append(
                Row(
                    f"published block, {kind}, in ResNet-50, {phase}",
                    f"{other} in the same host",
                    seconds[own] / seconds[other],
                    target,
                    "at most",
                    detail,
                )
            )
    return found
