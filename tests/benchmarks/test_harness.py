"""The benchmarks' own arithmetic, and that their command line answers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from harness import Row, in_turn, machine, plain_forms  # noqa: E402


def test_a_target_holds_on_its_side() -> None:
    def row(value: float, better: str) -> bool:
        return Row("a", "b", value, 2.0, better, "").holds  # type: ignore[arg-type]

    assert row(1.9, "at most")
    assert not row(2.1, "at most")
    assert row(2.1, "at least")
    assert not row(1.9, "at least")
    assert Row("a", "b", 1.0, 2.0, "at most", "").as_dict()["holds"] is True


def test_actions_take_turns_and_their_medians_are_told() -> None:
    order: list[str] = []
    seconds = in_turn(
        {
            "fast": lambda: order.append("fast"),
            "slow": lambda: (order.append("slow"), time.sleep(0.02)),
        },
        torch.device("cpu"),
        repeats=3,
        warmup=1,
    )
    assert order == ["fast", "slow"] * 4
    assert seconds["fast"] < 0.02 <= seconds["slow"]


def test_the_machine_is_described() -> None:
    described = machine(torch.device("cpu"))
    assert described["device"]
    assert described["torch"] == torch.__version__


def test_the_reference_is_found() -> None:
    assert plain_forms().PlainSuperSASE


def test_an_unknown_benchmark_is_told() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), "nosuch"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "nosuch" in done.stdout
    assert "steps" in done.stdout


@pytest.mark.slow
def test_one_benchmark_runs_and_prints_its_rows() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), "tables"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "10,000 trials into tables" in done.stdout
    assert "failed" not in done.stdout
