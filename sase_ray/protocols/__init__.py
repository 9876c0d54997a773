"""Preset protocols, one YAML file per data set, and the reliability of their proxies."""

from pathlib import Path

FOLDER = Path(__file__).parent


def presets() -> tuple[str, ...]:
    """Return the data sets that have a preset protocol."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))
