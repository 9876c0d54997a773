"""Parts of the tests of whole comparisons: a tiny configuration, and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_settings() -> Mapping[str, Any]:
    """A comparison of seconds."""
    return {
        "dataset": "digits",
        "space": "sase_tiny",
        "backbone": {"name": "resnet8", "options": {"width": 4}},
        "data": {"train_size": 96, "validation_size": 60},
        "proxy": {"epochs": 2, "batch_size": 32},
        "final": {"train_size": 200, "epochs": 1},
        "budget": 600,
        "seeds": 2,
        "baselines": ["none", "se"],
    }


@pytest.fixture
def tiny(tiny_settings, tmp_path) -> dict[str, Any]:
    """The same, written under `tmp_path`."""
    return {**tiny_settings, "results": str(tmp_path / "results")}


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m sase_ray` with the given arguments as the process that a user starts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    environment.pop("RAY_ADDRESS", None)

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sase_ray", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=180,
            **options,
        )

    return run
