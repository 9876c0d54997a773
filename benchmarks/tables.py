"""Time and memory of collecting a run of many trials into its tables."""

from __future__ import annotations

import random
import tempfile
import time
import tracemalloc
from pathlib import Path

from harness import Row

from sase_ray.execution.result_tables import ResultTables
from sase_ray.results.folder import RunFolder
from sase_ray.results.history import History, SearchOutcome
from sase_ray.results.search_id import SearchId
from search_spaces.space import SearchSpace

EPOCHS = 3


def collect(trials: int) -> tuple[float, float]:
    """Return the seconds and the peak bytes per trial of collecting and writing the trials."""
    space = SearchSpace.load("sase")
    rng = random.Random(0)
    tracemalloc.start()
    started = time.perf_counter()
    history = History("val_loss", "min")
    for trial in range(trials):
        genotype = str(space.sample(rng))
        for epoch in range(1, EPOCHS + 1):
            history.add(
                f"t{trial}",
                {
                    "genotype": genotype,
                    "epoch": epoch,
                    "samples": 1000 * epoch,
                    "train_seconds": 0.5 * epoch,
                    "train_loss": rng.random(),
                    "val_loss": rng.random(),
                    "val_accuracy": rng.random(),
                    "diverged": False,
                    "reason": "",
                    "finished": epoch == EPOCHS,
                },
            )
        history.genotypes[f"t{trial}"] = genotype
    outcome = SearchOutcome(
        "random", 0, history.ranked_trials(), "val_loss", history, history.samples, history.seconds
    )
    with tempfile.TemporaryDirectory() as folder:
        search = SearchId("random", 0)
        tables = ResultTables(RunFolder(Path(folder)), space, {"random": "black-box"}, [search])
        tables.search_ended(search, outcome)
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak / trials


def rows() -> list[Row]:
    collect(10)
    found = {trials: collect(trials) for trials in (100, 1000, 10_000)}
    detail = ", ".join(
        f"{trials:,} trials {seconds:.2f} s and {size / 1024:.1f} KiB a trial"
        for trials, (seconds, size) in found.items()
    )
    return [
        Row("10,000 trials into tables", "-", found[10_000][0], 10, "at most", detail, unit="s"),
        Row(
            "time a trial, 10,000 trials",
            "1,000 trials",
            found[10_000][0] / found[1000][0] / 10,
            1.5,
            "at most",
            detail,
        ),
        Row(
            "memory a trial, 10,000 trials",
            "1,000 trials",
            found[10_000][1] / found[1000][1],
            1.2,
            "at most",
            detail,
        ),
    ]
