"""The history of a search: its evaluations and trials, as plain rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from search_spaces.errors import UserError
from search_spaces.genotype import Genotype, Ranking
from trainables.metrics import SPREAD, Mode, recorded

Row = dict[str, Any]

_NOT_OF_TRIAL = {"finished", "alpha", "ranking", "scores"}


@dataclass
class History:
    """The evaluations and the trials of one search.

    Attributes:
        evaluations: One row per evaluation in the order of arrival: trial, genotype, epoch,
            samples and train_seconds of the trial, metrics, and search_samples and search_seconds
            of the whole search up to then.
        genotypes: Genotype that each trial was begun for, in searches that train genotypes.
        failures: Reason of failure by trial.
        metric: Metric that the search optimises.
        mode: Whether small (min) or large (max) values of the metric are better.
        samples: Training samples seen so far; at first those seen before the first trial.
        seconds: Device-seconds held so far; at first those held before the first trial.
    """

    metric: str
    mode: Mode
    samples: int = 0
    seconds: float = 0.0
    evaluations: list[Row] = field(default_factory=list)
    genotypes: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.samples_before, self.seconds_before = self.samples, self.seconds
        self._last: dict[str, Row] = {}
        self._best: Row | None = None

    def add(self, trial_id: str, result: Row) -> Row:
        """Add an evaluation and return its row; each epoch of a trial arrives once, in order."""
        row = {"trial": trial_id} | recorded(result)
        before = self._last.get(trial_id)
        self.evaluations.append(row)
        self._last[trial_id] = row
        self.samples += row["samples"] - (before["samples"] if before else 0)
        self.seconds += row["train_seconds"] - (before["train_seconds"] if before else 0.0)
        best = self._best
        if best is None or self._rank_key(row) < self._rank_key(best):
            self._best = row
        elif best["trial"] == trial_id:  # the incumbent got worse: any other may be better now
            self._best = min(self._last.values(), key=self._rank_key)
        assert self._best is not None
        row |= {
            "search_samples": self.samples,
            "search_seconds": self.seconds,
            "incumbent": self._best["genotype"],
            **{f"incumbent_{key}": self._best[key] for key in self._ranking_metrics(self._best)},
        }
        return row

    def _ranking_metrics(self, row: Row) -> list[str]:
        """Return the metrics of a row by which genotypes may be ranked."""
        return [
            key
            for key in row
            if key == self.metric or (key.startswith("val_") and not key.endswith(SPREAD))
        ]

    def _rank_key(self, row: Row) -> tuple[bool, int, float]:
        sign = 1 if self.mode == "min" else -1
        return (row["diverged"], -row["epoch"], sign * row[self.metric])

    def ranked_trials(self) -> Ranking:
        """Rank genotypes by their trials: first by the length of training, then by the metric.

        Raises:
            UserError: No trial has reported anything.
        """
        if not self.evaluations:
            raise self._no_result()
        ranked: dict[str, float] = {}
        for row in sorted(self._last.values(), key=self._rank_key):
            ranked.setdefault(row["genotype"], row[self.metric])
        return [(Genotype.parse(text), score) for text, score in ranked.items()]

    def _no_result(self) -> UserError:
        reasons = {*self.failures.values(), *(row["reason"] for row in self._last.values())}
        why = "; ".join(sorted(reasons - {""})) or "nothing was reported"
        return UserError(f"no trial of the search has a result: {why}")

    def last_ranking(self) -> Ranking:
        """Return the latest ranking of a one-shot search that had not diverged by then.

        Raises:
            UserError: There is none.
        """
        for row in reversed(self.evaluations):
            if not row["diverged"]:
                return [(Genotype.parse(text), score) for text, score in row["ranking"]]
        raise self._no_result()

    def trials(self) -> list[Row]:
        """Return one row per trial: its last evaluation, and how it ended.

        `status` is `finished`, `stopped` (early, by a scheduler or the budget's end), `diverged`
        or `failed`; the latter two with a `reason`.
        """
        rows = [
            {"trial": row["trial"]}
            | {k: value for k, value in recorded(row).items() if k not in _NOT_OF_TRIAL}
            | {"status": _status(row)}
            for row in self._last.values()
        ]
        for row in rows:
            if row["trial"] in self.failures:
                row |= {"status": "failed", "reason": self.failures[row["trial"]]}
        rows += [
            {
                "trial": trial,
                "genotype": self.genotypes.get(trial),
                "status": "failed",
                "reason": reason,
            }
            for trial, reason in self.failures.items()
            if trial not in self._last
        ]
        return rows


def _status(row: Row) -> str:
    if row["diverged"]:
        return "diverged"
    return "finished" if row.get("finished") else "stopped"


@dataclass(frozen=True)
class SearchOutcome:
    """The result of a search.

    Attributes:
        strategy: Name of the strategy.
        seed: Seed of the search.
        ranking: Genotypes with scores, best first.
        score: Meaning of the scores, and which are better.
        history: Every evaluation.
        samples: Training samples seen.
        seconds: Device-seconds of all trials.
    """

    strategy: str
    seed: int
    ranking: Ranking
    score: str
    history: History
    samples: int
    seconds: float

    def last(self, key: str) -> float:
        """Return the last value that was reported under a key, or NaN if there is none."""
        rows = reversed(self.history.evaluations)
        return float(next((row[key] for row in rows if key in row), float("nan")))

    @property
    def peak_memory_mib(self) -> float:
        """Peak memory over all trials in MiB, or NaN if no trial reported any."""
        key = "peak_memory_mib"
        peaks = (row[key] for row in self.history.evaluations if key in row)
        return max(peaks, default=float("nan"))

    @property
    def genotype(self) -> Genotype:
        """The genotype that is the strategy's answer."""
        return self.ranking[0][0]
