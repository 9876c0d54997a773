"""ENAS: its policy gradient against the exact one, by enumeration of a tiny space."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from search_spaces.space import SearchSpace


@pytest.fixture
def controller_of(start_algorithm, write_space):
    """An algorithm over 2 * 3 * 2 genotypes, its controller in float64 and far from uniform."""

    def start(seed=0, **options):
        space = SearchSpace.load(
            write_space(
                {
                    "channel_squeeze": ["gap", "gap_gmp"],
                    "refine_excite": ["affine", "conv3", "fc"],
                    "spatial_excite": ["affine", "conv3x3"],
                }
            )
        )
        options = {"hidden": 6, "temperature": 1.0, **options}
        algorithm, batches = start_algorithm("enas", space, seed, **options)
        algorithm.controller.double()
        generator = torch.Generator().manual_seed(seed + 10)
        with torch.no_grad():
            for parameter in algorithm.controller.parameters():
                parameter.normal_(generator=generator)
        return algorithm, batches

    return start


def every_choice(algorithm):
    sizes = [range(len(variable.choices)) for variable in algorithm.space.variables]
    return [torch.tensor([choice]) for choice in itertools.product(*sizes)]


def reward_of(chosen):
    """A reward without any structure that a controller could share."""
    return math.sin(1.7 * int((chosen[0] * torch.tensor([1, 2, 4, 8, 16, 32])).sum())) + 1.2


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients])


def exact_gradient(algorithm):
    parameters = list(algorithm.controller.parameters())
    expected = sum(
        algorithm.evaluate_choices(chosen)[0].exp() * reward_of(chosen)
        for chosen in every_choice(algorithm)
    )
    return flat(torch.autograd.grad(expected, parameters, materialize_grads=True))


def step_gradient(algorithm, chosen, reward, baseline):
    """The gradient that one step of REINFORCE hands to its optimiser."""
    algorithm.baseline = baseline
    algorithm.optimizer.step = lambda: None
    algorithm.reinforce(chosen, reward)
    return flat(
        [
            torch.zeros_like(p) if p.grad is None else p.grad
            for p in algorithm.controller.parameters()
        ]
    )


def test_the_probabilities_of_all_genotypes_sum_to_one(controller_of):
    algorithm, _ = controller_of()
    chances = [
        algorithm.evaluate_choices(chosen)[0].exp().item() for chosen in every_choice(algorithm)
    ]
    assert len(chances) == 12
    assert sum(chances) == pytest.approx(1)
    assert max(chances) > 3 * min(chances)


@pytest.mark.parametrize("baseline", [0.0, 1.2, -7.0])
def test_the_mean_of_the_policy_gradient_is_the_exact_gradient(baseline, controller_of):
    decay = 0.75
    algorithm, _ = controller_of(entropy_weight=0, baseline_decay=decay)
    exact = exact_gradient(algorithm)
    mean = torch.zeros_like(exact)
    for chosen in every_choice(algorithm):
        chance = algorithm.evaluate_choices(chosen)[0].exp().detach()
        mean += chance * step_gradient(algorithm, chosen, reward_of(chosen), baseline)
    # The baseline takes the reward in first: what is left of (R - b) is its share `decay`.
    torch.testing.assert_close(-mean / decay, exact, rtol=1e-9, atol=1e-12)


def test_a_baseline_near_the_mean_reward_lowers_the_variance(controller_of):
    algorithm, _ = controller_of(entropy_weight=0)

    def variance(baseline):
        rows = [
            (
                float(algorithm.evaluate_choices(chosen)[0].exp().detach()),
                step_gradient(algorithm, chosen, reward_of(chosen), baseline),
            )
            for chosen in every_choice(algorithm)
        ]
        mean = sum(p * g for p, g in rows)
        return float(sum(p * (g - mean).square().sum() for p, g in rows))

    expected = sum(
        algorithm.evaluate_choices(c)[0].exp().item() * reward_of(c)
        for c in every_choice(algorithm)
    )
    assert variance(expected) < variance(0.0)


def test_the_baseline_is_the_moving_mean_of_the_rewards(controller_of):
    algorithm, _ = controller_of(entropy_weight=0, baseline_decay=0.9)
    chosen = every_choice(algorithm)[0]
    algorithm.reinforce(chosen, 0.5)
    assert algorithm.baseline == 0.5
    algorithm.reinforce(chosen, 1.0)
    algorithm.reinforce(chosen, 0.0)
    assert algorithm.baseline == pytest.approx(0.9 * (0.9 * 0.5 + 0.1))


def test_the_entropy_is_part_of_the_reward(controller_of):
    algorithm, _ = controller_of(entropy_weight=0.3)
    chosen = every_choice(algorithm)[5]
    rows = [row[0].exp() for row in algorithm.controller(chosen)]
    entropy = sum(-float((row * row.log()).sum()) for row in rows)
    assert float(algorithm.evaluate_choices(chosen)[1]) == pytest.approx(entropy)
    algorithm.reinforce(chosen, 0.5)
    assert algorithm.baseline == pytest.approx(0.5 + 0.3 * entropy)


def test_the_controller_knows_what_it_chose_before(controller_of):
    algorithm, _ = controller_of()
    first = algorithm.controller(torch.tensor([[0, 0, 0, 0, 0, 0]]))
    other = algorithm.controller(torch.tensor([[1, 0, 0, 0, 0, 0]]))
    assert torch.equal(first[0], other[0])
    assert not torch.allclose(first[2], other[2])


def test_genotypes_are_drawn_with_their_probabilities(controller_of):
    algorithm, _ = controller_of()
    count = 600
    drawn = torch.cat([algorithm.controller.sample(algorithm.generator) for _ in range(count)])
    for chosen in every_choice(algorithm):
        chance = float(algorithm.evaluate_choices(chosen)[0].exp())
        frequency = float((drawn == chosen).all(1).double().mean())
        error = math.sqrt(chance * (1 - chance) / count)
        assert frequency == pytest.approx(chance, abs=4.5 * error + 1e-9)


@pytest.mark.parametrize("count", [12, 50])
def test_the_likeliest_equal_brute_force_where_the_beam_holds_the_space(count, controller_of):
    algorithm, _ = controller_of()
    every = sorted(
        ((algorithm.evaluate_choices(c)[0].item(), c[0].tolist()) for c in every_choice(algorithm)),
        reverse=True,
    )
    chosen, totals = algorithm.controller.likeliest(count)
    assert chosen.tolist() == [choice for _, choice in every]
    assert totals.tolist() == pytest.approx([total for total, _ in every])
    ranking = algorithm.ranking(3)
    best = [v.choices[i] for v, i in zip(algorithm.space.variables, every[0][1], strict=True)]
    assert ranking[0][0].ops == tuple(best)
    assert [score for _, score in ranking] == sorted((s for _, s in ranking), reverse=True)


def test_the_reward_is_the_accuracy_of_the_path_on_the_batch(controller_of):
    algorithm, batches = controller_of()
    images, labels = batches[0]
    for chosen in every_choice(algorithm)[::5]:
        pairs = zip(algorithm.space.variables, chosen[0].tolist(), strict=True)
        genotype = "-".join(variable.choices[index] for variable, index in pairs)
        network = algorithm.supernet.extract(algorithm.space.parse(genotype)).train()
        right = float((network(images).argmax(1) == labels).double().mean())
        assert algorithm.reward(chosen, batches[0]) == pytest.approx(right)


def test_a_controller_that_is_rewarded_for_one_genotype_comes_to_draw_it(controller_of):
    algorithm, _ = controller_of(controller_lr=0.05, entropy_weight=0.0, baseline_decay=0.9)
    target = every_choice(algorithm)[7]
    for _ in range(150):
        chosen = algorithm.controller.sample(algorithm.generator)
        algorithm.reinforce(chosen, float((chosen == target).double().mean()))
    assert torch.equal(algorithm.controller.likeliest(1)[0], target)


def test_the_initial_controller_is_the_papers_and_by_the_seed(start_algorithm):
    def parameters(seed):
        algorithm, _ = start_algorithm("enas", seed=seed)
        return flat(algorithm.controller.state_dict().values())

    first = parameters(0)
    assert -0.1 <= float(first.min()) < -0.09
    assert 0.09 < float(first.max()) <= 0.1
    assert torch.equal(first, parameters(0))
    assert not torch.equal(first, parameters(1))


def test_a_new_controller_leaves_torchs_random_state_alone(start_algorithm):
    algorithm, _ = start_algorithm("enas")
    before = torch.get_rng_state()
    algorithm.start(algorithm.supernet, algorithm.trainer, torch.Generator())
    algorithm.mixture()
    assert torch.equal(torch.get_rng_state(), before)
