"""DARTS: its gradients against autograd, and its choice on a problem with a known answer."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from sase_ray.strategies.one_shot import darts_2nd
from sase_ray.strategies.one_shot.darts import DARTSAlgorithm
from search_spaces.genotype import EDGES
from search_spaces.mixture import Mixture
from search_spaces.network import Supernet
from search_spaces.space import SearchSpace
from trainables.one_shot import trainable as supernet_module
from trainables.one_shot.trainable import SupernetTrainable
from trainables.training.loop import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def set_up(make_job):
    """A started algorithm on a float64 supernet with a batch of each half."""

    def make(name="darts-2nd", seed=0, **options):
        job = make_job()
        options = {"lr": 0.05, "weight_decay": 0.01, **options}
        algorithm = make_strategy(name, options).algorithm(SearchTask(job, 10_000))
        supernet = algorithm.build_supernet(job.network, job.space, seed).double()
        trainer = Trainer(
            lambda images: supernet(images, algorithm.mixture()),
            algorithm.weight_parameters(supernet),
            algorithm.protocol,
            100,
            CPU,
        )
        algorithm.start(supernet, trainer, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for i, alpha in enumerate(algorithm.alpha):
                alpha.data = torch.linspace(-0.5, 0.7, len(alpha), dtype=torch.float64) * (-1) ** i
        images = job.data.train.images.double() / 255 - 0.3
        labels = job.data.train.labels
        batches = [(images[i : i + 12], labels[i : i + 12]) for i in (0, 12, 24, 36)]
        return algorithm, batches

    return make


def loss_at(algorithm, weights, alpha, batch):
    """The loss as a pure function of weights and alpha, on a copy of the supernet."""
    supernet = deepcopy(algorithm.supernet)
    mixture = Mixture([torch.exp(a) / torch.exp(a).sum() for a in alpha])
    logits = functional_call(supernet, weights, (batch[0], mixture))
    return -torch.log_softmax(logits, 1)[torch.arange(len(batch[1])), batch[1]].mean()


def leaves(algorithm):
    weights = {
        name: p.detach().clone().requires_grad_()
        for name, p in algorithm.supernet.named_parameters()
    }
    return weights, [a.detach().clone().requires_grad_() for a in algorithm.alpha]


def exact_hypergradient(algorithm, train, validation):
    """Autograd through the unrolled SGD step, nothing approximated (eq. 6)."""
    weights, alpha = leaves(algorithm)
    group = algorithm.trainer.optimizer.param_groups[0]
    buffers = [
        algorithm.trainer.optimizer.state[p].get("momentum_buffer")
        for p in algorithm.supernet.parameters()
    ]
    gradients = torch.autograd.grad(
        loss_at(algorithm, weights, alpha, train),
        list(weights.values()),
        create_graph=True,
        materialize_grads=True,
    )
    unrolled = {}
    for (name, weight), gradient, buffer in zip(weights.items(), gradients, buffers, strict=True):
        step = gradient + group["weight_decay"] * weight
        if buffer is not None:
            step = step + group["momentum"] * buffer
        unrolled[name] = weight - group["lr"] * step
    return torch.autograd.grad(loss_at(algorithm, unrolled, alpha, validation), alpha)


def distance(first, second):
    first, second = torch.cat(list(first)), torch.cat(list(second))
    return float((first - second).norm() / second.norm())


def test_the_first_order_gradient_equals_autograds(set_up):
    algorithm, (train, validation, *_) = set_up("darts")
    weights, alpha = leaves(algorithm)
    expected = torch.autograd.grad(loss_at(algorithm, weights, alpha, validation), alpha)
    assert distance(algorithm.gradient(train, validation), expected) < 1e-10


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("momentum", ["no buffer yet", "buffer present"])
def test_the_second_order_gradient_equals_autograd_through_the_unrolled_step(
    momentum, seed, set_up, monkeypatch
):
    # The paper's step of 0.01 crosses kinks of so small a ReLU network (below, a smooth one).
    monkeypatch.setattr(darts_2nd, "FINITE_STEP", 1e-5)
    algorithm, (train, validation, *others) = set_up(seed=seed)
    state = algorithm.trainer.optimizer.state
    if momentum == "buffer present":
        for batch in others:
            algorithm.trainer.step(batch)
        assert all("momentum_buffer" in state[p] for p in algorithm.trainer.parameters)
    else:
        assert not any(state[p] for p in algorithm.trainer.parameters)
    exact = exact_hypergradient(algorithm, train, validation)
    ours = algorithm.gradient(train, validation)
    assert distance(ours, exact) < 1e-4
    first_order = DARTSAlgorithm.gradient(algorithm, train, validation)
    assert distance(first_order, exact) > 0.01, "the implicit term must be seen"


class Smooth(nn.Module):
    """Six mixed edges without a kink, in the place of a supernet."""

    def __init__(self, space):
        super().__init__()
        torch.manual_seed(3)
        self.space = space
        self.edges = nn.ModuleList(
            nn.ModuleList(nn.Linear(16, 16, dtype=torch.float64) for _ in variable.choices)
            for variable in space.variables
        )
        self.norm = nn.BatchNorm1d(16, dtype=torch.float64)
        self.classify = nn.Linear(16, 10, dtype=torch.float64)

    def forward(self, images, mixture):
        x = F.avg_pool2d(images, 2).flatten(1)
        for operations, weights in zip(self.edges, mixture.edges, strict=True):
            x = torch.tanh(sum(w * op(x) for w, op in zip(weights, operations, strict=True)))
        return self.classify(self.norm(x))


@pytest.mark.parametrize("momentum", ["no buffer yet", "buffer present"])
def test_with_the_papers_finite_step_the_gradient_of_a_smooth_problem_is_exact(momentum, make_job):
    job = make_job()
    algorithm = make_strategy("darts-2nd", {"lr": 0.05}).algorithm(SearchTask(job, 10_000))
    supernet = Smooth(job.space)
    trainer = Trainer(
        lambda images: supernet(images, algorithm.mixture()),
        supernet.parameters(),
        algorithm.protocol,
        100,
        CPU,
    )
    algorithm.start(supernet, trainer, torch.Generator().manual_seed(0))
    for alpha in algorithm.alpha:
        alpha.data = torch.linspace(-1, 1, len(alpha), dtype=torch.float64)
    images, labels = job.data.train.images.double() / 255, job.data.train.labels
    train, validation = (images[:32], labels[:32]), (images[32:64], labels[32:64])
    if momentum == "buffer present":
        trainer.step((images[64:], labels[64:]))
    exact = exact_hypergradient(algorithm, train, validation)
    assert distance(algorithm.gradient(train, validation), exact) < 1e-4
    first_order = DARTSAlgorithm.gradient(algorithm, train, validation)
    assert distance(first_order, exact) > 0.001


def test_the_second_order_gradient_leaves_no_trace(set_up, assert_same):
    algorithm, (train, validation, *others) = set_up()
    for batch in others:
        algorithm.trainer.step(batch)

    def state():
        return deepcopy(
            {
                "supernet": dict(algorithm.supernet.state_dict()),
                "trainer": algorithm.trainer.state_dict(),
                "algorithm": algorithm.state_dict(),
            }
        )

    assert any("running_mean" in key for key in algorithm.supernet.state_dict())
    before = state()
    gradients = [p.grad.clone() for p in algorithm.trainer.parameters if p.grad is not None]
    algorithm.gradient(train, validation)
    assert_same(state(), before)
    after = [p.grad for p in algorithm.trainer.parameters if p.grad is not None]
    assert_same(after, gradients)
    assert all(alpha.grad is None for alpha in algorithm.alpha), "nor does a weight step"
    assert algorithm.supernet.training


@pytest.mark.parametrize(("name", "passes"), [("darts", 2), ("darts-2nd", 5)])
def test_a_step_costs_the_passes_that_it_makes(name, passes, set_up):
    algorithm, (train, validation, *_) = set_up(name)
    forwards = []
    algorithm.supernet.register_forward_hook(lambda *_: forwards.append(1))
    algorithm.architecture_step(train, validation)
    algorithm.trainer.step(train)
    assert len(forwards) == passes == algorithm.step_cost.passes


def test_alpha_is_stepped_by_adam_with_the_papers_settings(set_up):
    algorithm, (train, validation, *_) = set_up("darts", alpha_lr=3e-4)
    before = [alpha.detach().clone() for alpha in algorithm.alpha]
    gradients = algorithm.gradient(train, validation)
    algorithm.architecture_step(train, validation)
    for old, new, gradient in zip(before, algorithm.alpha, gradients, strict=True):
        decayed = gradient + 1e-3 * old
        expected = old - 3e-4 * decayed / (decayed.abs() + 1e-8)
        torch.testing.assert_close(new.detach(), expected, rtol=1e-6, atol=1e-9)
    assert algorithm.optimizer.param_groups[0]["betas"] == (0.5, 0.999)


def test_the_papers_settings_are_the_defaults(make_job):
    protocol = make_strategy("darts").algorithm(SearchTask(make_job(), 10_000)).protocol
    assert protocol.optimizer == "sgd"
    assert (protocol.lr, protocol.momentum, protocol.weight_decay) == (0.025, 0.9, 3e-4)
    assert (protocol.clip, protocol.batch_size) == (5.0, 64)


def test_alpha_starts_near_zero_and_by_the_seed(make_job):
    job = make_job()

    def alpha(seed):
        algorithm = make_strategy("darts").algorithm(SearchTask(job, 10_000))
        supernet = Supernet(job.network, job.space)
        trainer = Trainer(supernet, supernet.parameters(), algorithm.protocol, 1, CPU)
        algorithm.start(supernet, trainer, torch.Generator().manual_seed(seed))
        return torch.cat([a.detach() for a in algorithm.alpha])

    assert alpha(0).equal(alpha(0))
    assert not alpha(0).equal(alpha(1))
    assert 0 < alpha(0).abs().max() < 0.01


# A made-up problem: each edge reads one sixth of a digit's pixels, and only one of its
# operations lets them through; which one is drawn by the seed.


class Puzzle(nn.Module):
    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__()
        self.space = space
        generator = torch.Generator().manual_seed(seed)
        operations = len(space.variables[0].choices)
        self.right = torch.randint(operations, (len(EDGES),), generator=generator).tolist()
        self.norm = nn.BatchNorm1d(64, affine=False)
        self.classify = nn.Linear(64, 10)

    def forward(self, images, mixture):
        parts = images.flatten(1).chunk(len(EDGES), dim=1)
        mixed = []
        for part, weights, right in zip(parts, mixture.edges, self.right, strict=True):
            wrong = [
                torch.randn_like(part),
                torch.zeros_like(part),
                part[torch.randperm(len(part))],
            ]
            outputs = [*wrong[:right], part, *wrong[right:]]
            mixed.append(sum(w * out for w, out in zip(weights, outputs, strict=True)))
        return self.classify(self.norm(torch.cat(mixed, dim=1)))

    @property
    def answer(self):
        choices = (variable.choices for variable in self.space.variables)
        return "-".join(ops[right] for ops, right in zip(choices, self.right, strict=True))


@pytest.mark.parametrize("name", ["darts", "darts-2nd"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_operation_that_is_clearly_best_is_found_on_each_edge(
    name, seed, make_job, monkeypatch
):
    monkeypatch.setattr(supernet_module, "INSPECTIONS", 0)  # the puzzle has no blocks
    space = SearchSpace("puzzle", {"a": ("a", "b", "c", "d")}, dict.fromkeys(EDGES, "a"))
    job = make_job(space, seed=seed, train=800, validation=100, augment=False)
    steps = 100
    budget = steps * 32 * (2 if name == "darts" else 5)
    strategy = make_strategy(name, {"batch_size": 32, "alpha_lr": 0.05, "lr": 0.1})
    algorithm = strategy.algorithm(SearchTask(job, budget))
    puzzle = Puzzle(space, seed)
    algorithm.build_supernet = lambda spec, space, seed: puzzle

    class Bound(SupernetTrainable):
        def setup(self, config):
            super().setup(config, job=job, algorithm=algorithm, budget=budget)
            self.go_on()

    trainable = Bound(config={})
    assert F.softmax(algorithm.alpha[0], 0).max() < 0.26, "the operations begin alike"
    while not (result := trainable.train())["done"]:
        pass
    assert result["genotype"] == puzzle.answer
    # Clearly: well ahead of the next, of four that began alike.
    for row in result["alpha"].values():
        best, second, *_ = sorted(row, reverse=True)
        assert best > 1.5 * second
