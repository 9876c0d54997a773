"""A made-up run that has every table, with known effects."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from sase_ray.analysis.verdict import judge
from sase_ray.figures import outcomes as figures
from sase_ray.report import block_sections
from sase_ray.results.load import Run
from search_spaces.genotype import EDGES
from search_spaces.space import SearchSpace

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "fashion_mnist"
SEEDS = 8
BETTER = "gap"
"""Channel squeeze that lowers the made-up loss by `EFFECT`."""
EFFECT = 0.02
TRUTH = {"random": 0.80, "tpe": 0.82, "darts": 0.815, "none": 0.78, "se": 0.79, "cbam": 0.785}
FAMILIES = {"random": "black-box", "tpe": "black-box", "darts": "one-shot"}


@pytest.fixture(scope="session")
def planted() -> dict[str, Any]:
    """What the made-up run holds."""
    return {"better": BETTER, "effect": EFFECT, "truth": TRUTH, "seeds": SEEDS}


@pytest.fixture
def reference() -> Path:
    """The committed run."""
    return REFERENCE


@pytest.fixture
def copied(tmp_path) -> Path:
    """A copy of the committed run, to damage."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "copied"))


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """Write a made-up run: ``make_run("name", renamed={"tpe": "<script>"})``."""

    def make(name: str = "made", *, renamed: dict[str, str] | None = None, **config: Any) -> Path:
        return write_run(tmp_path / name, renamed or {}, config)

    return make


@pytest.fixture
def undrawn(monkeypatch):
    """Leave figures empty, where a test reads the text alone: drawing takes seconds."""
    for name in vars(figures).copy():
        if name.endswith("_figure"):
            monkeypatch.setattr(figures, name, lambda *given: Figure())
    for name in ("draw_block", "gradcam_figure"):
        monkeypatch.setattr(block_sections, name, lambda *given: Figure())


def write_run(folder: Path, renamed: dict[str, str], config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    space = SearchSpace.load("sase")
    draw = random.Random(0)
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("final", "searches", "trials", "curves", "alpha", "rankings")
    }
    for seed in range(SEEDS):
        shift = rng.normal(0, 0.02)
        for strategy, family in FAMILIES.items():
            answer, cost = _search(rows, strategy, family, seed, shift, space, draw, rng)
            head = {"strategy": strategy, "seed": seed, "genotype": answer}
            rows["searches"].append({**head, **cost, "peak_memory_mib": rng.uniform(300, 900)})
            _final(rows, strategy, family, seed, answer, rng)
        for baseline in ("none", "se", "cbam"):
            _final(rows, baseline, "baseline", seed, baseline, rng)
    frames = {name: pd.DataFrame(own) for name, own in rows.items()}
    verdict = judge(frames["final"], frames["searches"], test_size=10_000, dataset="made up")
    memory = frames["searches"].groupby("strategy")["peak_memory_mib"].mean()
    table = verdict.table.assign(peak_memory_mib=verdict.table["name"].map(memory))
    frames["strategies"] = table
    frames["agreement"] = pd.DataFrame(
        {"strategy": "darts", "seed": range(SEEDS), "tau": 0.2, "low": -0.1, "high": 0.5,
         "genotypes": 20}
    )  # fmt: skip
    frames["gradcam"] = pd.DataFrame(_gradcam(rng))
    for name, frame in frames.items():
        column = next(c for c in ("name", "strategy", "module") if c in frame)
        frame[column] = frame[column].replace(renamed)
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    recorded = {
        "config": {
            "dataset": "made up", "space": "sase", "backbone": {"name": "resnet8"},
            "metric": "val_loss", "budget": 60_000, "seeds": SEEDS, **config,
        },
        "run": {"started": "2026-01-01T00:00:00", "splits": {"test": 10_000, "sha256": "ab" * 32}},
        "versions": {"python": "3.11"},
        "git": "0" * 40,
        "hardware": {"cpus": 2.0, "gpu": None},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(recorded))
    return folder


def as_errors(run: Run) -> Run:
    """The same run with the final metric turned over: normalised errors of 1 / accuracy ** 2."""
    columns = ["test_accuracy", "ci_low", "ci_high"]
    strategies = run.strategies.copy()
    strategies[columns] = strategies[columns] ** -2.0
    strategies = strategies.rename(columns={"test_accuracy": "test_normalised_error"})
    final = run.final.assign(test_normalised_error=run.final["test_accuracy"] ** -2.0)
    recorded = run.recorded.model_copy(
        update={"config": {**run.config, "task": "distillation", "task_options": {}}}
    )
    return replace(run, recorded=recorded, strategies=strategies, final=final)


def _search(rows, strategy, family, seed, shift, space, draw, rng):
    best, answer = np.inf, ""
    trials = 1 if family == "one-shot" else 12
    for trial in range(trials):
        genotype = space.sample(draw)
        loss = 0.7 + shift + rng.normal(0, 0.01) - EFFECT * (genotype.ops[0] == BETTER)
        if loss < best:
            best, answer = loss, str(genotype)
        row = {
            "strategy": strategy, "seed": seed, "trial": f"t{trial}", "genotype": str(genotype),
            "epoch": 2, "samples": 5000, "train_seconds": 2.0, "train_loss": 0.6,
            "val_loss": loss, "val_accuracy": 1 - loss, "diverged": False, "reason": "",
        }  # fmt: skip
        edges = dict(zip(EDGES, genotype.ops, strict=True))
        rows["trials"].append(row | {"family": family, "status": "finished"} | edges)
        rows["curves"].append(
            row | {
                "search_samples": 5000 * (trial + 1), "search_seconds": 2.0 * (trial + 1),
                "incumbent": answer, "incumbent_val_loss": best,
                "incumbent_val_accuracy": 1 - best,
            }
        )  # fmt: skip
    if family == "one-shot":
        for step in range(1, 11):
            rows["curves"].append(
                rows["curves"][-1] | {
                    "epoch": step, "search_samples": 5000 * step, "entropy": 1 - 0.05 * step,
                    "dominant_eigenvalue": 0.1 * step + rng.normal(0, 0.05),
                    "poor_share": 0.1 * step / 2, "discretisation_gap": 0.01 * step,
                }
            )  # fmt: skip
            for variable in space.variables:
                logits = np.arange(len(variable.choices)) * step / 40
                for op, p in zip(
                    variable.choices, np.exp(logits) / np.exp(logits).sum(), strict=True
                ):
                    rows["alpha"].append(
                        {"strategy": strategy, "seed": seed, "search_samples": 5000 * step,
                         "variable": variable.name, "operation": op, "probability": p}
                    )  # fmt: skip
    rows["rankings"].append(
        {"strategy": strategy, "seed": seed, "rank": 1, "genotype": answer, "score": best,
         "score_is": "val_loss (lower is better)"}
    )  # fmt: skip
    return answer, {"samples": 60_000, "seconds": float(rng.uniform(20, 30)), "trials": trials}


def _final(rows, name, family, seed, module, rng):
    rows["final"].append(
        {
            "name": name, "family": family, "seed": seed, "final_seed": 10_000 + seed,
            "module": module, "diverged": False, "reason": "", "train_loss": 0.5,
            "test_loss": 0.5, "test_accuracy": TRUTH[name] + rng.normal(0, 0.004),
            "samples": 36_000, "train_seconds": 15.0,
            "parameters": 19_000 + int(rng.integers(0, 5000)),
            "macs": 630_000 + int(rng.integers(0, 90_000)), "latency_ms": rng.uniform(1, 9),
        }
    )  # fmt: skip


def _gradcam(rng):
    ys, xs = np.mgrid[0:28, 0:28]
    for image in range(4):
        pixels = (120 + 100 * np.sin(xs / (2 + image)) * np.cos(ys / 3)).astype(np.uint8)
        for module in ("none", "se", "cbam", "tpe"):
            x, y = rng.uniform(6, 22, 2)
            cam = (255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 50)).astype(np.uint8)
            yield {
                "module": module, "genotype": None, "seed": 0, "image": image, "label": image,
                "predicted": image if module == "tpe" else int(rng.integers(0, 4)),
                "height": 28, "width": 28, "channels": 1,
                "pixels": pixels.tobytes(), "cam": cam.tobytes(),
            }  # fmt: skip
