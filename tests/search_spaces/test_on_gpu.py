"""Blocks on a GPU: equal to the CPU's results, plain and fused, and never a wait for the device."""

from __future__ import annotations

import copy
import random
from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from search_spaces.genotype import PUBLISHED
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.ops.kernels.mode import fused
from search_spaces.space import SearchSpace
from trainables.data.augment import Augmentation, Normalisation
from trainables.data.batches import Batches
from trainables.data.dataset import LabelledImages
from trainables.training.cuda_graphs import as_graphs
from trainables.training.loop import Trainer, place
from trainables.training.protocol import TrainingProtocol

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]

SPACE = SearchSpace.load("sase_narrow")
SPEC = NetworkSpec("resnet8", 10, 3, (32, 32), {"width": 8})
GENOTYPES = [PUBLISHED, *SPACE.sample_distinct(6, random.Random(0))]


def gradients(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor):
    network.zero_grad()
    loss = F.cross_entropy(network(images), labels)
    loss.backward()
    return loss.detach().cpu(), [p.grad.cpu() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("mode", [nullcontext, fused])
@pytest.mark.parametrize("genotype", GENOTYPES, ids=str)
def test_a_block_gives_the_same_on_cpu_and_gpu(genotype, mode):
    network = SPEC.with_genotype(genotype).double()
    images, labels = torch.randn(6, 3, 32, 32, dtype=torch.float64), torch.arange(6)
    loss, expected = gradients(copy.deepcopy(network), images, labels)
    with mode():
        loss_there, found = gradients(network.cuda(), images.cuda(), labels.cuda())
    torch.testing.assert_close(loss_there, loss, rtol=1e-9, atol=1e-9)
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-6, atol=1e-8)


def test_a_supernet_gives_the_same_on_cpu_and_gpu():
    alpha = [torch.rand(len(v.choices), dtype=torch.float64) for v in SPACE.variables]
    images, labels = torch.randn(6, 3, 32, 32, dtype=torch.float64), torch.arange(6)

    def run(device: str):
        weights = [a.to(device).requires_grad_() for a in alpha]
        supernet = Supernet(SPEC, SPACE).double().to(device)
        mixture = Mixture([w.softmax(0) for w in weights])
        F.cross_entropy(supernet(images.to(device), mixture), labels.to(device)).backward()
        return [w.grad.cpu() for w in weights]

    for have, want in zip(run("cuda"), run("cpu"), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-6, atol=1e-8)


def test_a_training_step_never_waits_for_the_gpu():
    device = torch.device("cuda")
    protocol = TrainingProtocol(batch_size=16)
    data = LabelledImages(
        torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 10, (64,))
    ).to(device)
    network = place(SPEC.with_genotype(PUBLISHED), protocol, device)
    supernet = place(Supernet(SPEC, SPACE), protocol, device)
    alpha = [torch.zeros(len(v.choices), device=device) for v in SPACE.variables]
    for forward, model in (
        (network, network),
        (lambda x: supernet(x, Mixture([a.softmax(0) for a in alpha])), supernet),
    ):
        trainer = Trainer(forward, model.parameters(), protocol, 100, device)
        batches = Batches(
            data,
            16,
            Normalisation((0.5,) * 3, (0.5,) * 3),
            seed=0,
            shuffle=True,
            augmentation=Augmentation(padding=2, flip=True),
        )
        epoch = iter(batches)
        trainer.step(next(epoch))  # beginning an epoch may wait, to send its order
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(len(batches) - 2):
                trainer.step(next(epoch))
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_training_in_bfloat16_follows_float32():
    device = torch.device("cuda")
    images, labels = torch.randn(64, 3, 32, 32, device=device), torch.arange(64, device=device) % 10
    losses = {}
    for amp in (True, False):
        protocol = TrainingProtocol(lr=0.05, amp=amp)
        network = place(SPEC.with_genotype(PUBLISHED), protocol, device)
        forward = as_graphs(network, protocol, device)
        trainer = Trainer(forward, network.parameters(), protocol, 40, device)
        losses[amp] = [float(trainer.step((images, labels))) for _ in range(40)]
    assert losses[True][-1] < losses[True][0] - 0.3
    assert losses[True][0] == pytest.approx(losses[False][0], rel=0.02)
    assert losses[True][-1] == pytest.approx(losses[False][-1], rel=0.2)


def test_a_network_that_reads_a_number_trains_without_graphs():
    class Reads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.own = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.own(x) if float(x.sum()) > -1e9 else x

    network = Reads().cuda()
    forward = as_graphs(network, TrainingProtocol(), torch.device("cuda"))
    x = torch.ones(2, 3, device="cuda")
    with pytest.warns(UserWarning, match="trains without CUDA graphs"):
        found = forward(x)
    found.sum().backward()
    assert bool((network.own.weight.grad == 2).all())
    assert torch.rand(3, device="cuda").shape == (3,)  # the generator is not left in the recording
