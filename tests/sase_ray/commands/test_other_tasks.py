"""Every task but classification from the command line, and training-free search beside others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from trainables.tasks.catalogue import make_task
from trainables.tasks.registry import TASKS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OTHERS = [name for name in TASKS if name != "classification"]


@pytest.mark.parametrize("name", OTHERS)
def test_a_task_is_compared_and_reported(name, tiny, command, tmp_path):
    path = tmp_path / "tiny.yaml"
    final = {**tiny["final"], "gradcam_images": 2}
    path.write_text(yaml.safe_dump({**tiny, "final": final, "seeds": 1, "baselines": ["se"]}))
    done = command(
        *["compare", "--config", str(path), "--strategies", "random,darts,zero-cost"],
        *["--run", "other", "--set", f"task={name}", "--set", "proxy.epochs=1"],
    )
    assert done.returncode == 0, done.stderr
    assert "Grad-CAM:" not in done.stdout, "there is no reason for none"
    task = make_task(name)
    folder = tmp_path / "results" / "other"
    tables = {file.stem: pd.read_parquet(file) for file in folder.glob("*.parquet")}
    assert set(tables["strategies"]["name"]) == {"random", "darts", "zero-cost", "se"}
    best_first = tables["strategies"].set_index("name")[task.final]
    assert np.isfinite(best_first).all()
    metric = task.metric(task.final)
    assert (metric.sign * best_first).is_monotonic_increasing
    assert f"{task.final.replace('_', ' ')}{metric.unit and f' in {metric.unit}'}" in done.stdout
    assert (" points" in done.stdout) == metric.share
    assert tables["final"][list(task.reported("test"))].notna().all(axis=None)
    trained = tables["trials"]["strategy"] != "zero-cost"
    assert tables["trials"].loc[trained, list(task.reported("val"))].notna().all(axis=None)
    assert tables["trials"].loc[~trained, "grad_norm"].gt(0).all()
    assert len(tables["gradcam"]) == 2 * 4
    answers = tables["searches"].set_index("strategy")["genotype"]
    curves = tables["curves"]
    scored = curves[curves["strategy"] == "zero-cost"]
    best = scored.loc[scored["grad_norm"].idxmax()]
    assert answers["zero-cost"] == best["genotype"]
    assert scored["incumbent_grad_norm"].iloc[-1] == best["grad_norm"]
    reported = command("report", str(folder), "--format", "md")
    assert reported.returncode == 0, reported.stderr
    text = (folder / "report.md").read_text()
    assert task.final.replace("_", " ") in text
    assert "| zero-cost |" in text
