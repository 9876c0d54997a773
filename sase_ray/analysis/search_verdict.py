"""Confidence of a search that its answer is better than its second-ranked genotype."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

import pandas as pd
from scipy import stats

from sase_ray.results.history import SearchOutcome
from search_spaces.genotype import Genotype
from search_spaces.space import SearchSpace
from trainables.metrics import SHARED_LOSS
from trainables.one_shot.trainable import STOPPED_EARLY

UNDECIDED = 1.5
"""Ratio of the two best operations' probabilities, below which their edge is undecided."""

SMALLEST_LEAD = 5e-5
"""Smallest lead that is written as a number, in nats; a smaller one is written as none."""


def rank_confidence(
    outcome: SearchOutcome,
    space: SearchSpace,
    measured: pd.Series | None,
    *,
    trains_genotypes: bool,
    ranks_by: str,
) -> Iterator[str]:
    """Describe what the first rank of a search is worth, in sentences.

    Args:
        outcome: Outcome of the search.
        space: Search space of the search.
        measured: Reliability of the proxy protocol (`measured_reliability`), if it is known.
        trains_genotypes: Whether its strategy trains each genotype on its own.
        ranks_by: Name of the metric that its strategy ranks by.
    """
    if trains_genotypes:
        yield from _of_trials(outcome, measured)
        return
    alpha = _alpha_of_answer(outcome)
    if alpha:
        yield from _of_alpha(outcome.genotype, alpha, space)
        yield from _of_travel(outcome)
    if ranks_by == SHARED_LOSS:
        yield _of_shared_weights(outcome)
    elif ranks_by == outcome.history.metric:
        yield (
            f"Nothing was trained: the ranking is by {ranks_by} of untrained networks, and whether "
            f"that agrees with trained ones is not known here."
        )


def _of_shared_weights(outcome: SearchOutcome) -> str:
    if len(outcome.ranking) < 2:
        return "With shared weights one candidate only was judged, so nothing was compared."
    (_, first), (_, second) = outcome.ranking[:2]
    lead = f"better than the second by {second - first:.4f} nats of validation loss"
    if second - first < SMALLEST_LEAD:
        lead = "not better than the second"
    return (
        f"With shared weights the first is {lead}; how far that holds for networks trained alone, "
        f"--set agreement=table measures where there is a ground-truth table."
    )


def _alpha_of_answer(outcome: SearchOutcome) -> dict[str, list[float]] | None:
    told = [row for row in outcome.history.evaluations if "alpha" in row]
    if told and _stop(outcome):
        # The answer is from an evaluation before the stop, when alpha had other values.
        answer = str(outcome.genotype)
        told = [row for row in told[:-1] if row["genotype"] == answer] or told
    return told[-1]["alpha"] if told else None


def _stop(outcome: SearchOutcome) -> str:
    """Return why a search stopped early; an empty text if it did not."""
    last = outcome.history.evaluations[-1] if outcome.history.evaluations else {}
    reason = str(last.get("reason") or "")
    return reason if reason.startswith(STOPPED_EARLY) else ""


def _divergence(outcome: SearchOutcome) -> str:
    """Return why a one-shot search diverged; an empty text if it did not."""
    last = outcome.history.evaluations[-1] if outcome.history.evaluations else {}
    is_one_shot = "ranking" in last  # in a search of trials, one diverged trial does not matter
    return str(last["reason"]) if is_one_shot and last["diverged"] else ""


def early_stops(outcomes: Iterable[SearchOutcome], budget: int) -> Iterator[str]:
    """List the one-shot searches that ended early, on a sign of collapse or by diverging.

    Args:
        outcomes: Outcomes of all searches.
        budget: Number of training samples that each search could have seen.
    """
    for outcome in outcomes:
        if reason := _stop(outcome):
            yield (
                f"{outcome.strategy} with seed {outcome.seed} {reason}, after {outcome.samples:,} "
                f"of {budget:,} samples; its answer is what it ranked best before that."
            )
        elif reason := _divergence(outcome):
            yield (
                f"{outcome.strategy} with seed {outcome.seed} diverged after {outcome.samples:,} "
                f"of {budget:,} samples ({reason}); its answer is what it ranked best before that."
            )


def narrow_views(outcomes: Iterable[SearchOutcome], space: SearchSpace) -> Iterator[str]:
    """List the searches that showed their operations so few channels that some are the same.

    Along n channels, padded with zeros, a convolution reaches at most n - 1 channels to either
    side: one with more than 2n - 1 taps is equal to one with 2n - 1.

    Args:
        outcomes: Outcomes of all searches.
        space: Search space of all searches.
    """
    names = sorted({op for variable in space.variables for op in variable.choices})
    taps = {op: int(op.removeprefix("conv")) for op in names if re.fullmatch(r"conv\d+", op)}
    seen = {outcome.strategy: outcome.last("shown_channels") for outcome in outcomes}
    for strategy, shown in seen.items():
        widest = 2 * shown - 1
        cut = [op for op, size in taps.items() if size > widest]
        if cut:
            yield (
                f"{strategy} showed its operations only {shown:.0f} channels of the narrowest "
                f"block, where {', '.join(cut)} can use {widest:.0f} taps: what it thinks of "
                f"convolutions of {widest:.0f} and more channels is no evidence. Set its `parts` "
                f"lower, or take a wider backbone."
            )


def _of_trials(outcome: SearchOutcome, measured: pd.Series | None) -> Iterator[str]:
    if len(outcome.ranking) < 2:
        yield "There was one trial only, so nothing was compared."
        return
    (_, first), (_, second) = outcome.ranking[:2]
    noise = float(measured.get("sd_residual", math.nan)) if measured is not None else math.nan
    if not math.isfinite(noise) or not noise:
        yield (
            "How much of the first's lead over the second is luck is not known, as the noise of "
            "this proxy protocol has not been measured: `sase-ray reliability` does."
        )
        return
    lead = abs(first - second)
    luck = float(2 * stats.norm.sf(lead / (noise * 2**0.5)))
    yield (
        f"The first leads the second by {lead:.4f} in {outcome.history.metric}; one trial has a "
        f"noise of {noise:.4f}, so that two equal genotypes would differ by as much in "
        f"{luck:.0%} of all cases."
    )


def _of_travel(outcome: SearchOutcome) -> Iterator[str]:
    travel, largest = outcome.last("travel"), outcome.last("travel_max")
    entropy = outcome.last("entropy")
    if math.isfinite(travel) and math.isfinite(entropy):
        yield (
            f"Architecture parameters have moved by {travel:.2g} in the mean and {largest:.2g} at "
            f"most; the entropy of the probabilities is {entropy:.2f} (1 is uniform)."
        )


def _of_alpha(
    genotype: Genotype, alpha: dict[str, list[float]], space: SearchSpace
) -> Iterator[str]:
    shares, undecided = [], []
    for variable, op in zip(space.variables, genotype.ops, strict=True):
        row = alpha[variable.name]
        own = row[variable.choices.index(op)]
        shares.append(f"{variable.name} {own:.2f} of {len(row)}")
        others = [p for choice, p in zip(variable.choices, row, strict=True) if choice != op]
        if others and own < UNDECIDED * max(others):
            undecided.append(variable.name)
    yield f"Probabilities of the chosen operations (and among how many): {', '.join(shares)}."
    if undecided:
        yield (
            f"Undecided, the next best being more than 1/{UNDECIDED:g} as probable: "
            f"{', '.join(undecided)}."
        )
