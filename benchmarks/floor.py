"""A block's training step compared with the time that only its memory traffic would take."""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness import Row, in_turn, prepare
from torch import nn

from search_spaces.block import SASE
from search_spaces.ops.kernels.mode import fused
from search_spaces.space import SearchSpace
from search_spaces.super_block import SuperSASE

PASSES = 5
"""Memory passes over a map: read forward and backward, gradient read, two results written."""


def rows() -> list[Row]:
    device = prepare()
    space = SearchSpace.load("sase")
    on_gpu = device.type == "cuda"
    batch, dtype = (1024, torch.bfloat16) if on_gpu else (64, torch.float32)
    one = torch.ones(2**28 if on_gpu else 2**24, device=device)  # more than any cache holds
    other = torch.empty_like(one)
    copied = in_turn({"copy": lambda: other.copy_(one)}, device, repeats=9)["copy"]
    bandwidth = 2 * one.numel() * one.element_size() / copied
    found = []
    for channels, size in ((16, 32), (64, 8)):
        x = torch.randn(batch, channels, size, size, device=device, dtype=dtype)
        x.requires_grad_()
        gradient = torch.randn_like(x)
        alpha = [torch.full((7,), 1 / 7, device=device) for _ in range(6)]

        def step(block: nn.Module, *weights: object) -> Callable[[], None]:
            def run() -> None:
                with fused():
                    block(x, *weights).backward(gradient)  # noqa: B023

            return run

        blocks = {
            "published": step(SASE(channels, size=(size, size)).to(device)),
            "supernet": step(SuperSASE(channels, space, size=(size, size)).to(device), alpha),
        }
        floor = PASSES * x.numel() * x.element_size() / bandwidth
        for name, seconds in in_turn(blocks, device, repeats=9).items():
            found.append(
                Row(
                    f"{name} block's step, {channels} channels, {size}x{size}, batch {batch}",
                    f"{PASSES} passes at the bandwidth of a copy",
                    seconds / floor,
                    None,
                    "at most",
                    f"{1e3 * seconds:.2f} ms, floor {1e3 * floor:.3f} ms at "
                    f"{bandwidth / 1e9:,.0f} GB/s",
                )
            )
    return found
