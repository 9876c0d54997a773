"""Judging with shared weights, against a network that is taken out of the supernet."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch.optim.swa_utils import update_bn

from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.mixture import Mixture
from search_spaces.network import Supernet
from search_spaces.space import SearchSpace
from trainables.data import Batches
from trainables.one_shot.shared_weights import SharedWeights
from trainables.training.loop import Diverged, Evaluation, evaluate
from trainables.training.protocol import TrainingProtocol

CPU = torch.device("cpu")
PROTOCOL = TrainingProtocol(epochs=1, batch_size=16)


def move_statistics(supernet, images):
    """Give running statistics, of every operation, something to remember."""
    supernet.train()
    with torch.no_grad():
        even = [torch.full((len(v.choices),), 1 / len(v.choices)) for v in supernet.space.variables]
        supernet(images, Mixture(even))


@pytest.fixture
def make_shared(make_job):
    def make(supernet=None, budget=0, validation_batch=25, **options):
        job = make_job(**options)
        train = Batches(job.data.train, 16, job.data.normalisation)
        validation = Batches(job.data.validation, validation_batch, job.data.normalisation)
        supernet = supernet or Supernet(job.network, job.space, seed=1)
        move_statistics(supernet, train.first()[0][0])
        return SharedWeights(supernet, PROTOCOL, train.first(4), validation, CPU, budget)

    return make


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(
    "text", ["gap-conv3-fc-gap-pnorm-affine", "cov-fc-affine-gap_std-gap-conv7x7"]
)
def test_a_genotype_is_judged_as_the_network_extracted_for_it(text, mode, make_shared):
    shared = make_shared()
    shared.supernet.train(mode)
    genotype = shared.supernet.space.parse(text)
    network = shared.supernet.extract(genotype)
    update_bn([images for images, _ in shared.statistics], network)
    expected = evaluate(network, shared.validation, PROTOCOL, CPU)
    judged = shared.evaluate_genotype(genotype)
    assert judged.loss == pytest.approx(expected.loss, rel=1e-5)
    assert judged["accuracy"] == pytest.approx(expected["accuracy"])
    # With the statistics of all operations together it would be another network.
    with torch.no_grad():
        mixture = Mixture.of(genotype, shared.supernet.space)
        stale = evaluate(
            shared.supernet,
            shared.validation,
            PROTOCOL,
            CPU,
            forward=lambda images: shared.supernet(images, mixture),
        )
    assert abs(stale.loss - judged.loss) > 1e-4
    assert shared.supernet.training == mode


@pytest.mark.parametrize("name", ["darts", "pc-darts", "adarts", "rf-darts", "rsws"])
def test_judging_leaves_no_trace(name, make_job, make_shared, assert_same):
    job = make_job()
    algorithm = make_strategy(name).algorithm(SearchTask(job, 10_000))
    shared = make_shared(algorithm.build_supernet(job.network, job.space, 0))
    before = {key: value.clone() for key, value in shared.supernet.state_dict().items()}
    random_before = torch.get_rng_state(), random.getstate()
    momenta = [getattr(module, "momentum", None) for module in shared.supernet.modules()]
    shared.rank(lambda: job.space.sample(random.Random(0)), 1)
    shared.evaluate_genotype(job.space[0])
    assert_same(dict(shared.supernet.state_dict()), before)
    assert torch.equal(torch.get_rng_state(), random_before[0])
    assert random.getstate() == random_before[1]
    assert [getattr(m, "momentum", None) for m in shared.supernet.modules()] == momenta
    assert all(p.grad is None for p in shared.supernet.parameters())


def test_a_judgement_that_fails_leaves_no_trace_either(make_shared, assert_same):
    shared = make_shared()
    with torch.no_grad():
        shared.supernet.host.fc.weight.fill_(math.nan)
    before = {key: value.clone() for key, value in shared.supernet.named_buffers()}
    with pytest.raises(Diverged):
        shared.evaluate_genotype(shared.supernet.space[0])
    assert_same(dict(shared.supernet.named_buffers()), before)


def test_every_image_of_every_pass_is_counted(make_shared):
    shared = make_shared(train=96, validation=60)
    seen = []
    shared.supernet.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    shared.evaluate_genotype(shared.supernet.space[0])
    assert sum(seen) == 64 + 60
    assert shared.samples == shared.cost() == 42, "a third of them, rounded up"
    shared.evaluate_genotype(shared.supernet.space[1], screening=True)
    assert sum(seen) == 124 + 64 + 25
    assert shared.cost(screening=True) == 30
    assert shared.samples == 42 + 30


class MadeUp(SharedWeights):
    """Losses that are known; a screening sees them with an error."""

    def loss_of(self, genotype, screening):
        index = self.supernet.space.index(genotype)
        if index % 7 == 3:
            raise Diverged("made up")
        return (index * 37 % 64) / 64 + (0.3 * math.sin(index) if screening else 0.0)

    def evaluate_genotype(self, genotype, *, screening=False):
        self.samples += self.cost(screening=screening)
        self.judged.append((genotype, screening))
        return Evaluation({"loss": self.loss_of(genotype, screening)})


@pytest.fixture
def made_up(write_space, make_shared):
    space = SearchSpace.load(
        write_space(
            {
                "channel_squeeze": ["gap", "gap_gmp"],
                "channel_excite": ["affine", "conv3"],
                "spatial_excite": ["affine", "conv3x3"],
            }
        )
    )

    def make(budget, validation_batch=25, **options):
        shared = make_shared(
            space=space, budget=budget, validation_batch=validation_batch, **options
        )
        shared.__class__ = MadeUp
        shared.judged = []
        return shared

    return make


def proposer(space, seed=0):
    rng = random.Random(seed)
    return lambda: space.sample(rng)


@pytest.mark.parametrize("validation_batch", [25, 60])
def test_the_ranking_of_a_whole_space_equals_brute_force(validation_batch, made_up):
    shared = made_up(10**6, validation_batch)
    space = shared.supernet.space
    losses = {}
    for genotype in space:
        try:
            losses[genotype] = shared.loss_of(genotype, False)
        except Diverged:
            losses[genotype] = math.inf
    expected = sorted(losses.items(), key=lambda item: item[1])
    ranking = shared.rank(proposer(space), 100)
    assert len(ranking) == space.size == 8
    assert [loss for _, loss in ranking] == [loss for _, loss in expected]
    assert ranking[-1][1] == math.inf, "what diverges comes last"
    assert dict(ranking) == losses
    assert shared.rank(proposer(space), 2) == ranking[:2]


@pytest.mark.parametrize("validation_batch", [25, 60])
@pytest.mark.parametrize("budget", [*range(0, 400, 21), 41, 42, 43, 84, 10_000])
def test_a_ranking_never_exceeds_its_budget(budget, validation_batch, made_up):
    shared = made_up(budget, validation_batch)
    space = shared.supernet.space
    ranking = shared.rank(proposer(space), 20)
    assert shared.samples <= budget
    known = {genotype for genotype, screening in shared.judged if not screening}
    if budget < shared.cost():
        assert not shared.judged
        (first,) = ranking
        assert first[0] in space
        assert math.isnan(first[1])
        return
    assert {genotype for genotype, _ in ranking} == known
    assert [loss for _, loss in ranking] == sorted(loss for _, loss in ranking)
    screened = [genotype for genotype, screening in shared.judged if screening]
    assert len(set(screened)) == len(screened), "none is judged twice"
    if len(known | set(screened)) < space.size:
        assert budget - shared.samples < 2 * shared.cost(), "nor is much of the budget left"


def test_the_best_of_a_screening_are_judged_on_all_images(made_up):
    # Six on the first batch, one of them on all; on all images the budget would pay for two.
    shared = made_up(122 + 30 * 6, validation=300)
    ranking = shared.rank(proposer(shared.supernet.space), 20)
    screened = {}
    for genotype, screening in shared.judged:
        if screening:
            try:
                screened[genotype] = shared.loss_of(genotype, True)
            except Diverged:
                screened[genotype] = math.inf
    best = sorted(screened, key=screened.__getitem__)[: len(ranking)]
    assert len(screened) > len(ranking) >= 1
    assert {genotype for genotype, _ in ranking} == set(best)


@pytest.mark.parametrize("validation_batch", [60, 59, 57, 25])
def test_nothing_is_screened_where_as_many_can_be_judged_on_all(validation_batch, made_up):
    # Five judgements, of 64 training and 60 validation images each. With a screening half of the
    # budget would judge two, and the rest screen four at most.
    shared = made_up(5 * 42, validation_batch)
    assert len(shared.rank(proposer(shared.supernet.space), 20)) == 5


def test_a_space_smaller_than_the_budget_comes_to_an_end(made_up):
    shared = made_up(10**9)
    one = shared.supernet.space[0]
    assert [genotype for genotype, _ in shared.rank(lambda: one, 20)] == [one]
