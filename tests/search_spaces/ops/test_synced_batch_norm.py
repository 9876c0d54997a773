"""Batch norm over the parts of several processes: as over the whole batch, to rounding."""

from __future__ import annotations

import socket

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

from search_spaces.errors import UserError
from search_spaces.ops.layers.batch_norm import BatchNorm2d
from search_spaces.ops.layers.second_order import SecondOrder
from search_spaces.ops.layers.synced_batch_norm import SharedNorm, share_norms

PARTS = (3, 2)
"""Images of each process; not alike."""

SIZES = (4, 1)
"""Of the images; with 1, the processes have three and two values a channel."""

CLOSE = {"rtol": 1e-9, "atol": 1e-9}

MAKERS = {
    "torch": lambda: nn.BatchNorm2d(5),
    "block": lambda: BatchNorm2d(5),
    "no-affine": lambda: BatchNorm2d(5, affine=False),
    "cumulative": lambda: BatchNorm2d(5, momentum=None),
    "no-running": lambda: nn.BatchNorm2d(5, track_running_stats=False),
    "timm": lambda: BatchNormAct2d(5),
    "second-order": lambda: SecondOrder(5, 4),
}


def _model(name):
    torch.manual_seed(0)
    model = nn.Sequential(MAKERS[name]()).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter))
    return model


def _images(name, size):
    torch.manual_seed(1)
    # Far from zero, where a variance by squares would cancel.
    offset = 0 if name == "second-order" else 1e4
    shape = (sum(PARTS), 5, 7) if name == "second-order" else (sum(PARTS), 5, size, size)
    return torch.randn(shape, dtype=torch.float64) + offset


def _look(model, name, size, part):
    """Values, gradients and buffers of the second of two training steps; values in evaluation."""
    model(2 * _images(name, size)[part])
    x = _images(name, size)[part].requires_grad_()
    y = model(x)
    loss = (y - torch.linspace(-1, 2, y[0].numel(), dtype=y.dtype).view(y.shape[1:])).pow(3).sum()
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    buffers = [b.clone() for b in model.buffers()]
    model.eval()
    return y.detach(), x.grad, gradients, buffers, model(x).detach()


def _process(rank, port, folder):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=len(PARTS))
    start = sum(PARTS[:rank])
    part = slice(start, start + PARTS[rank])
    seen = {
        (name, size): _look(share_norms(_model(name)), name, size, part)
        for name in MAKERS
        for size in SIZES
    }
    torch.save(seen, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each process saw, by model and size of the images."""
    folder = tmp_path_factory.mktemp("seen")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, args=(port, folder), nprocs=len(PARTS))
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(PARTS))]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MAKERS)
def test_parts_are_normalised_as_the_whole_batch(name, size, seen):
    y, in_x, in_parameters, buffers, evaluated = _look(_model(name), name, size, slice(None))
    parts = [each[name, size] for each in seen]
    for whole, of_parts in ((y, 0), (in_x, 1)):
        torch.testing.assert_close(torch.cat([p[of_parts] for p in parts]), whole, **CLOSE)
    for i, gradient in enumerate(in_parameters):
        torch.testing.assert_close(sum(p[2][i] for p in parts), gradient, **CLOSE)
    for part in parts:
        assert len(part[3]) == len(buffers)
        for own, whole in zip(part[3], buffers, strict=True):
            torch.testing.assert_close(own, whole, **CLOSE)
    if buffers:  # else evaluation takes the statistics of what it is given, as torch does
        torch.testing.assert_close(torch.cat([p[4] for p in parts]), evaluated, **CLOSE)


def test_all_processes_keep_the_same_statistics_bit_for_bit(seen):
    for key, (*_, buffers, _) in seen[0].items():
        assert all(map(torch.equal, buffers, seen[1][key][3])), key


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_images_in_half_precision_are_normalised_in_full(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    torch.manual_seed(0)
    x = torch.randn(6, 5, 4, 4, device=device, dtype=torch.bfloat16) + 8
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    exact = x.detach().double().requires_grad_()
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        norm = SharedNorm(nn.BatchNorm2d(5).to(device))
        y = norm(x)
        y.float().pow(3).sum().backward()
    finally:
        dist.destroy_process_group()
    expected = nn.BatchNorm2d(5).to(device).double()(exact)
    expected.pow(3).sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), expected, rtol=2**-8, atol=1e-6)
    # The gradient is that of y as it was rounded.
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=0.05, atol=0.1)


def test_parameters_and_their_order_stay_what_they_were():
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.Sequential(BatchNorm2d(5)))
    before = list(model.parameters())
    shared = share_norms(model)
    assert all(own is other for own, other in zip(shared.parameters(), before, strict=True))
    assert sum(isinstance(module, SharedNorm) for module in shared.modules()) == 2


def test_an_unknown_batch_norm_is_refused_by_its_name():
    class Whitening(nn.BatchNorm2d):
        pass

    with pytest.raises(UserError, match=r"type Whitening .* final.workers to 1"):
        share_norms(nn.Sequential(Whitening(3)))
