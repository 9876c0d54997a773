"""Zero-cost search: what it scores, what it pays, and that it answers with the best."""

from __future__ import annotations

import pytest
import torch

from sase_ray.execution.one_search import run_search
from sase_ray.strategies import SearchTask
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from trainables.data import Batches
from trainables.scores.catalogue import make_score
from trainables.scores.registry import SCORES
from trainables.scores.trainable import ScoreTrainable
from trainables.tasks.classification import CLASSIFICATION

GENOTYPE = "gap-fc-affine-gap-gap-conv3x3"


@pytest.fixture
def score(make_job):
    """Score a genotype as a Tune worker does: ``score(job, name, **options)``."""

    def of(job, name, genotype=GENOTYPE, batch_size=16):
        class Bound(ScoreTrainable):
            def setup(self, config):
                super().setup(config, job=job, score=make_score(name), batch_size=batch_size)

        return Bound(config=job.space.to_config(job.space.parse(genotype))).train()

    return of


@pytest.mark.parametrize("name", SCORES)
def test_a_trial_reports_the_score_of_the_untrained_network_on_one_batch(name, make_job, score):
    job = make_job(seed=3)
    result = score(job, name)
    own = make_score(name)
    network = job.network.with_genotype(Genotype.parse(GENOTYPE), seed=3)
    batches = Batches(job.data.train, 16, job.data.normalisation, seed=3, shuffle=True)
    images, targets = next(iter(batches))
    assert result[own.metric.name] == own.compute(network, images, targets, CLASSIFICATION)
    assert (result["samples"], result["epoch"]) == (own.passes * 16, 1)
    assert result["done"]
    assert result["finished"]
    assert not result["diverged"]
    assert result["genotype"] == GENOTYPE


def test_all_genotypes_get_the_same_batch_and_another_seed_another(make_job, score):
    first, second = (score(make_job(seed=seed), "grad-norm") for seed in (0, 0))
    assert first["grad_norm"] == second["grad_norm"]
    assert score(make_job(seed=1), "grad-norm")["grad_norm"] != first["grad_norm"]


def test_a_score_that_is_not_finite_is_lost(make_job, score, monkeypatch):
    score_of = type(make_score("grad-norm"))
    monkeypatch.setattr(score_of, "compute", lambda *given: float("nan"))
    result = score(make_job(), "grad-norm")
    assert result["diverged"]
    assert result["grad_norm"] == -float("inf")
    assert result["reason"] == "the score is not finite"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "gradnorm"}, "did you mean 'grad-norm'"),
        ({"score_options": {"eps": 1}}, "eps"),
        ({"batch_size": 0}, "batch_size"),
        ({"genotypes": 0}, "genotypes"),
    ],
)
def test_a_wrong_option_is_one_sentence(options, message):
    with pytest.raises(UserError, match=message):
        make_strategy("zero-cost", options)


def test_a_budget_below_one_score_is_refused_with_the_number_that_is_needed(make_job):
    job = make_job()
    strategy = make_strategy("zero-cost", {"batch_size": 32})
    strategy.check(SearchTask(job, 32))
    with pytest.raises(UserError, match=r"31.*32"):
        strategy.check(SearchTask(job, 31))
    with pytest.raises(UserError, match="96"):  # there are no more images
        make_strategy("zero-cost", {"batch_size": 1000}).check(SearchTask(job, 95))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_search_pays_for_every_score_and_answers_with_the_best(make_job, tmp_path, score):
    job = make_job()
    strategy = make_strategy("zero-cost", {"batch_size": 16})
    task = SearchTask(job, 16 * 12 + 15)
    outcome = run_search(strategy, task, storage=tmp_path)
    assert outcome.samples == 16 * 12
    assert len(outcome.ranking) == len(dict(outcome.ranking)) == 12
    scores = [value for _, value in outcome.ranking]
    assert scores == sorted(scores, reverse=True)
    assert outcome.score == "grad_norm (higher is better)"
    threads = torch.get_num_threads()
    for genotype, value in (outcome.ranking[0], outcome.ranking[-1]):
        again = score(job, "grad-norm", str(genotype))
        assert again["grad_norm"] == pytest.approx(value)
    torch.set_num_threads(threads)
    last = outcome.history.evaluations[-1]
    assert last["incumbent"] == str(outcome.genotype)
    assert last["incumbent_grad_norm"] == scores[0]
    # A score that reads no image is limited by the number of genotypes alone.
    free = make_strategy("zero-cost", {"score": "parameters", "genotypes": 5})
    outcome = run_search(free, SearchTask(job, 1), storage=tmp_path)
    assert (len(outcome.ranking), outcome.samples) == (5, 0)
