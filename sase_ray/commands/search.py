"""A single search: one strategy, run once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sase_ray.analysis.search_verdict import early_stops, narrow_views, rank_confidence
from sase_ray.config import Config, load_config
from sase_ray.execution.all_searches import Interrupted, started
from sase_ray.execution.experiment import Experiment
from sase_ray.monitoring.observers import Monitors
from sase_ray.monitoring.tensorboard_summary import write_summaries
from sase_ray.results.folder import check_new_run
from sase_ray.results.history import SearchOutcome
from sase_ray.strategies.catalogue import make_strategy
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype, Ranking


@dataclass(frozen=True)
class SearchReport:
    """The result of a single search.

    Attributes:
        folder: Folder where everything is written.
        genotype: Answer of the strategy.
        ranking: Genotypes with scores, best first.
        score: Meaning of the scores.
        outcome: Outcome with the whole history.
        reading: Sentences on what its first rank is worth.
    """

    folder: Path
    genotype: Genotype
    ranking: Ranking
    score: str
    outcome: SearchOutcome
    reading: tuple[str, ...] = ()


def search(
    strategy: str,
    config: Config | Mapping[str, Any] | str | Path | None = None,
    *,
    console: Console | None = None,
    **overrides: Any,
) -> SearchReport:
    """Run one strategy once, without final training.

    Args:
        strategy: Name of the strategy.
        config: As for `compare`.
        console: As for `compare`.
        overrides: As for `compare`.

    Raises:
        UserError: As for `compare`, or the search gave no result.
    """
    one = {"strategies": [strategy], "seeds": 1, "baselines": []}
    settings = load_config(config, overrides | one)
    for name, given in settings.strategy_options.items():
        make_strategy(
            name, given
        )  # options of others are not used, but a misspelt name is a mistake
    options = {name: given for name, given in settings.strategy_options.items() if name == strategy}
    experiment = Experiment.of(settings.model_copy(update={"strategy_options": options}))
    check_new_run(experiment.config)
    return run_single_search(experiment, console)


def run_single_search(
    experiment: Experiment, console: Console | None = None, interrupted: Interrupted | None = None
) -> SearchReport:
    """Run the one search of an experiment, or the rest of an interrupted one.

    Raises:
        UserError: The search gave no result.
    """
    monitors = Monitors.of(experiment, console)
    with (
        started(experiment, console, {"kind": "search"}, monitors, interrupted) as searches,
        monitors.display.shown(),
    ):
        searches.run_all()
        if searches.failures:
            raise UserError(next(iter(searches.failures.values())))
        write_summaries(searches.folder.path)
        outcome = searches.outcomes[0]
        strategy = experiment.strategies[outcome.strategy]
        reading = [
            *early_stops(searches.outcomes, experiment.config.budget),
            *narrow_views(searches.outcomes, experiment.problem.space),
            *rank_confidence(
                outcome,
                experiment.problem.space,
                experiment.reliability,
                trains_genotypes=strategy.trains_genotypes,
                ranks_by=strategy.ranks_by(experiment.task(0)),
            ),
            *searches.write_agreement(),
            *searches.write_recovery(),
            *searches.on_shared_host(),
        ]
    return SearchReport(
        searches.folder.path,
        outcome.genotype,
        outcome.ranking,
        outcome.score,
        outcome,
        tuple(reading),
    )
