"""Preset protocols, one YAML file per data set, their reliability, and whole experiments."""

from pathlib import Path

FOLDER = Path(__file__).parent


def presets() -> tuple[str, ...]:
    """Return the data sets that have a preset protocol."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def experiments() -> tuple[str, ...]:
    """Return the names of the bundled configurations, which can be given instead of a file."""
    return tuple(sorted(path.stem for path in FOLDER.glob("experiments/*.yaml")))


def bundled_or_own(path: Path) -> Path:
    """Return the file of a bundled experiment by its name, if there is no file of that name."""
    if str(path) in experiments() and not path.exists():
        return FOLDER / "experiments" / f"{path}.yaml"
    return path
