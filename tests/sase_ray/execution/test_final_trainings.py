"""Comparisons whose final trainings are made by several workers each."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
import yaml

from sase_ray import compare, load_config
from sase_ray.execution.experiment import Experiment
from search_spaces.errors import UserError
from trainables.final.training import train_final

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def short(tiny):
    resources = {"gpus_per_trial": 0, "gpus_per_supernet": 0}
    few = {"strategies": ["random"], "seeds": 1, "budget": 240, "baselines": ["se"]}
    return {**tiny, **few, "resources": resources}


@pytest.mark.full
def test_a_comparison_with_two_workers_says_what_one_worker_would(short):
    final = {**short["final"], "workers": 2, "gradcam_images": 2}
    done = compare(**{**short, "final": final}, run="two")
    assert not done.failures
    final = pd.read_parquet(done.folder / "final.parquet")
    assert sorted(final["name"]) == ["random", "se"]
    shown = pd.read_parquet(done.folder / "gradcam.parquet")
    assert shown["module"].tolist() == ["random", "random", "se", "se"]
    assert (
        yaml.safe_load((done.folder / "config.yaml").read_text())["config"]["final"]["workers"] == 2
    )
    assert {p.name for p in done.folder.iterdir() if p.suffix not in {".parquet", ".csv"}} == {
        "config.yaml", "tensorboard",
    }  # fmt: skip
    setup = Experiment.of(load_config(overrides=short))
    threads = torch.get_num_threads()
    try:
        for row in final.to_dict("records"):
            job = setup.problem.final_job(
                row["module"], baseline=row["family"] == "baseline", seed=row["final_seed"]
            )
            alone = train_final(job, setup.problem.final_data)
            assert alone["test_loss"] == pytest.approx(row["test_loss"], rel=1e-4)
            assert alone["samples"] == row["samples"]
    finally:
        torch.set_num_threads(threads)


def test_more_workers_than_the_cluster_has_room_for_are_refused_at_once(short, tmp_path):
    with pytest.raises(UserError, match=r"final.workers is 3, .* room for 2, at 1 CPUs each"):
        compare(**{**short, "final": {**short["final"], "workers": 3}})
    assert not (tmp_path / "results").exists()
