"""A made-up problem with a known best genotype: every one-shot strategy beats uniform sampling.

Images are noisy prototypes of ten classes, which the host knows. Each set has an operation that
passes the signal on, one that adds noise to it, and one that multiplies it by noise. Noise anywhere
in the block ends up in its gates, so the genotype that passes the signal on every edge is the best.
"""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom, wilcoxon
from torch import nn
from torch.nn.functional import cross_entropy

from sase_ray.strategies import OneShot
from sase_ray.strategies.catalogue import strategies
from sase_ray.strategies.one_shot.sampled import SharedWeightsSearch
from search_spaces.backbones import register_backbone
from search_spaces.block import Join
from search_spaces.genotype import EDGE_KINDS, EDGES, KINDS, Genotype
from search_spaces.network import NetworkSpec
from search_spaces.ops import register_op
from search_spaces.space import SearchSpace
from trainables.data import ImageData, make_splits, search_data
from trainables.data.augment import Augmentation
from trainables.one_shot import trainable as supernet_module
from trainables.search_job import SearchJob
from trainables.training.protocol import ProxyProtocol

SEEDS = range(10)
BUDGET = 80 * 2 * 128
"""Samples: 80 steps of DARTS with batches of 128."""

SHORT = 5120
"""Samples of a short training, one epoch, by which uniform sampling would judge one genotype."""

# So few steps ask for higher rates of the architecture than the papers' of thousands. The weights
# begin near their best; small steps leave them there.
OPTIONS = {
    "batch_size": 128,
    "lr": 0.01,
    "alpha_lr": 0.1,
    "controller_lr": 0.02,
    "baseline_decay": 0.9,
    "parts": 2,
    "warmup": 0.1,
    "latency_power": 0.0,
}
RANKS = {"batch_size": 32, "reserve": 0.8}
"""Of searches that rank candidates in the end: as many as the budget pays for."""

ONE_SHOT = [name for name, strategy in strategies().items() if issubclass(strategy, OneShot)]

PROTOTYPES = 15 * torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
PIXEL_NOISE = 40


def chequered(x):
    """Plus and minus one in turn over the positions of (B, C, H, W): (1, 1, H, W)."""
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
    return 1.0 - 2.0 * ((rows[:, None] + columns) % 2)[None, None].to(x.dtype)


# After a batch norm and ReLU features have the mean 0.4. So gates without noise are the same for
# all images, nearly, and harmless.
SIGNAL = {
    "channel_squeeze": lambda x: x.mean((2, 3), keepdim=True) / 0.4,
    "channel_excite": lambda z: z,
    "spatial_squeeze": lambda x: chequered(x) * x.mean((1, 2, 3), keepdim=True) / 0.4,
    "spatial_excite": lambda s: 12 * s,
}
NOISE = {"channel_squeeze": 2, "channel_excite": 4, "spatial_squeeze": 1.5, "spatial_excite": 6}


class Host(nn.Module):
    """A classifier that knows the prototypes: all that is to be learned is what not to disturb."""

    def __init__(self, num_classes, in_channels, input_size, attention):
        super().__init__()
        assert input_size == PROTOTYPES.shape[2:]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()
        )
        features = 4 * input_size[0] * input_size[1]
        self.head = nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, num_classes))
        self.attention = attention(4, input_size, 0)
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1)
        matched = PROTOTYPES * signs / PIXEL_NOISE / 4
        with torch.no_grad():
            self.stem[0].weight.copy_(signs.transpose(0, 1))
            self.head[1].weight.copy_(matched.flatten(1))
            self.head[1].bias.zero_()
        for module in self.attention.modules():
            if isinstance(module, Join):  # neither side is to be ignored from the start
                nn.init.ones_(module.conv.weight)

    def forward(self, x):
        return self.head(self.attention(self.stem(x)).flatten(1))


@pytest.fixture
def problem(monkeypatch):
    """Enter host and operations; return the job of a seed, the best genotype among them."""
    register_backbone("made_up", stages=1, summary="made up", source="made up")(Host)
    monkeypatch.setattr(supernet_module, "INSPECTIONS", 0)
    for kind in KINDS:
        for name, added, multiplied in [("passes", 0, 0), ("noisy", 1, 0), ("shaken", 0, 1)]:

            def operation(x, kind=kind, added=added, multiplied=multiplied):
                signal, level = SIGNAL[kind](x), NOISE[kind]
                if not added and not multiplied:
                    return signal
                noise = level * torch.randn_like(signal)
                return signal + (noise if added else noise * signal)

            operation.__qualname__ = f"{kind}.{name}"
            register_op(kind, name)(operation)

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(7000) % 10
    noise = PIXEL_NOISE * torch.randn(7000, 1, 8, 8, generator=generator)
    images = (128 + PROTOTYPES[labels] + noise).clamp(0, 255).to(torch.uint8)
    names = tuple("0123456789")
    data = ImageData(images, labels, names, name="made_up", augmentation=Augmentation())
    splits = make_splits(data, seed=0, train_size=5120, validation_size=256)

    def job(seed):
        names = ("noisy", "shaken", "passes") if seed % 2 else ("shaken", "passes", "noisy")
        space = SearchSpace("made_up", dict.fromkeys(KINDS, names), EDGE_KINDS)
        return SearchJob(
            network=NetworkSpec("made_up", 10, 1, (8, 8)),
            space=space,
            data=search_data(data, splits),
            protocol=ProxyProtocol(epochs=1, batch_size=64, augment=False),
            seed=seed,
        )

    return job


def right_edges(genotype):
    return sum(op == "passes" for op in genotype.ops)


def best_of_uniform(draws):
    """Return the mean number of right edges of the best of some draws, judged without error."""
    edges = len(EDGES)
    below = [binom.cdf(k, edges, 1 / 3) ** draws for k in range(edges)]
    return sum(1 - chance for chance in below)


@torch.no_grad()
def loss_of(genotype, job):
    """Return the cross-entropy on training images, batch norms by all of them."""
    torch.manual_seed(0)
    network = job.network.with_genotype(genotype).train()
    images = job.data.train.images[:2000].float()
    logits = network((images - images.mean()) / images.std())
    return float(cross_entropy(logits, job.data.train.labels[:2000]))


def test_the_best_genotype_is_known(problem):
    job = problem(0)
    best = loss_of(Genotype(("passes",) * 6), job)
    for edge in range(len(EDGES)):
        for other in ("noisy", "shaken"):
            ops = ["passes"] * 6
            ops[edge] = other
            assert loss_of(Genotype(tuple(ops)), job) > best + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_SHOT)
def test_it_beats_uniform_sampling_at_the_same_budget(name, problem, run_search):
    strategy = strategies()[name]
    values = OPTIONS | RANKS if issubclass(strategy, SharedWeightsSearch) else OPTIONS
    options = {key: value for key, value in values.items() if key in strategy.model_fields}
    found = []
    for seed in SEEDS:
        _, results = run_search(problem(seed), name, BUDGET, **options)
        assert results[-1]["samples"] <= BUDGET
        found.append(right_edges(Genotype.parse(results[-1]["genotype"])))
    more = [right - best_of_uniform(BUDGET // SHORT) for right in found]
    assert wilcoxon(more, alternative="greater").pvalue < 0.01, found
