"""Versions, commit and hardware of a run."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import torch

from trainables.hardware.device import processor

PACKAGES = ("sase-ray", "torch", "torchvision", "timm", "ray", "optuna", "numpy", "scipy")


def package_version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(package)
    except ImportError:
        return "not installed"


def git_commit() -> str | None:
    """Return the commit of the source, or None outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(  # noqa: S603 - the command is constant
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def hardware() -> dict[str, Any]:
    """Describe the cluster that this process is connected to, and this machine."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return {
        "nodes": len(nodes),
        "cpus": sum(node.get("CPU", 0.0) for node in nodes),
        "gpus": sum(node.get("GPU", 0.0) for node in nodes),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "processor": processor(),
        "memory_gib": round(sum(node.get("memory", 0.0) for node in nodes) / 2**30, 1),
    }
