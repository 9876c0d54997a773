"""Costs of a network: parameters, multiply-accumulates, latency."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.ops.kernels.mode import fused


@dataclass(frozen=True)
class Cost:
    """Size of a network for one image.

    Attributes:
        parameters: Number of trainable scalars.
        macs: Multiply-accumulates of convolutions and matrix products in one forward pass.
    """

    parameters: int
    macs: int


def count_cost(model: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Count parameters and multiply-accumulates for one image of shape (C, H, W).

    Elementwise work (activations, statistics, gates) is not counted in the multiply-accumulates,
    as is usual in the field; the latency includes it.
    """
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameter = next(model.parameters())
    # On the meta device, where blocks are plain: fused, their statistics are matrix products too.
    shape_only = copy.deepcopy(model).to("meta").eval()
    image = torch.zeros(1, *input_shape, device="meta", dtype=parameter.dtype)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shape_only(image)
    return Cost(parameters=parameters, macs=counter.get_total_flops() // 2)


def measure_latency(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    *,
    batch_size: int = 32,
    min_seconds: float = 0.5,
    device: torch.device | None = None,
) -> float:
    """Measure the median time of one inference pass in milliseconds; on a CPU, with one thread.

    Blocks are evaluated fused. The model is left in evaluation mode.

    Args:
        input_shape: Shape (C, H, W) of one image.
        batch_size: Number of images in the pass.
        min_seconds: Time for which it is repeated, in seconds; the first passes are not counted.
        device: Device of the model, for models without parameters to read it from.
    """
    parameter = next(model.parameters(), torch.empty(0, device=device))
    model.eval()
    # A separate generator: measuring must not change later random draws.
    generator = torch.Generator(parameter.device).manual_seed(0)
    images = torch.empty(
        batch_size, *input_shape, device=parameter.device, dtype=parameter.dtype
    ).normal_(generator=generator)
    # Imported here: it looks for a CUDA compiler, and warns if there is one but no GPU.
    from torch.utils.benchmark import Timer

    with torch.inference_mode(), fused():
        timer = Timer("model(images)", globals={"model": model, "images": images})
        timer.timeit(2)
        return timer.blocked_autorange(min_run_time=min_seconds).median * 1e3
