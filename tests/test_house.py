"""Each package imports only from those below it, and genotypes come without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "search_spaces": {"ray", "trainables", "sase_ray"},
    "trainables": {"sase_ray"},
}


def imported(file: Path) -> set[str]:
    """Top-level packages of all imports in a file, also of those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in DYNAMIC
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value))
    return {name.partition(".")[0] for name in found}


DYNAMIC = {"import_module", "__import__"}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_only_from_below(package: str):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(file): bad for file in files if (bad := imported(file) & FORBIDDEN[package])}
    assert not wrong


def test_finds_imports_of_every_form(tmp_path: Path):
    file = tmp_path / "any.py"
    file.write_text(
        "import a.b\nfrom c.d import e\ndef f():\n    import g\n    import_module('h.i')\n"
    )
    assert imported(file) == {"a", "c", "g", "h"}


def modules_after(code: str) -> set[str]:
    code += "; import sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["genotype", "space", "errors"])
def test_the_plain_part_loads_neither_torch_nor_ray(module: str):
    loaded = modules_after(
        f"import search_spaces.{module}; "
        "space = search_spaces.SearchSpace.load('sase'); list(zip(range(9), space))"
    )
    assert f"search_spaces.{module}" in loaded
    assert not loaded & {"torch", "ray", "numpy", "timm", "trainables", "sase_ray"}


def test_blocks_and_networks_load_without_ray():
    loaded = modules_after("from search_spaces import SASE, Supernet, register_op")
    assert "torch" in loaded
    assert not loaded & {"ray", "trainables", "sase_ray"}


def test_every_public_name_is_there():
    import search_spaces

    assert all(hasattr(search_spaces, name) for name in search_spaces.__all__)
    with pytest.raises(AttributeError, match="no attribute 'SASEE'"):
        search_spaces.SASEE  # noqa: B018
