"""Every import goes down the floors of the house, and genotypes come without torch."""

import ast
import subprocess
import sys
from collections.abc import Container, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("sase_ray.cli",),
    ("sase_ray.commands",),
    ("sase_ray.monitoring", "sase_ray.report"),
    ("sase_ray.execution", "sase_ray.figures"),
    ("sase_ray.strategies", "sase_ray.analysis"),
    ("sase_ray.results", "sase_ray.cluster", "sase_ray.tabular_benchmark"),
    ("sase_ray.config", "sase_ray.statistics", "sase_ray.console"),
    ("sase_ray.protocols",),
    ("trainables",),
    ("search_spaces",),
)
"""Each part imports only itself and parts of floors below its own."""

TOP = {"sase_ray", "sase_ray.__main__"}
"""The public face and the entry point, which only name what is below."""

DYNAMIC = {"import_module", "__import__"}
MAX_LINES = 400


def modules_of(root: Path) -> dict[str, Path]:
    """Return the files of the three packages by the names of their modules."""
    modules = {}
    for package in ("sase_ray", "trainables", "search_spaces"):
        for file in (root / package).rglob("*.py"):
            parts = file.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return modules


def imported(file: Path, modules: Container[str] = ()) -> set[str]:
    """Return the names that a file imports, those inside functions and for types included.

    ``from package import name`` is the module ``package.name`` where there is one.
    """
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                names.add(name if name in modules else str(node.module))
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in DYNAMIC
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(str(node.args[0].value))
    return names


MODULES = modules_of(ROOT)
IMPORTS = {
    name: {other for other in imported(file, MODULES) if other in MODULES and other != name}
    for name, file in MODULES.items()
}


def place_of(module: str) -> tuple[int, str]:
    """Return the floor of a module, and its part of it."""
    places = [
        (floor, part)
        for floor, parts in enumerate(FLOORS)
        for part in parts
        if f"{module}.".startswith(f"{part}.")
    ]
    assert len(places) == 1, f"{module} is on no floor"
    return places[0]


def circle_in(imports: Mapping[str, set[str]]) -> list[str]:
    """Return modules that import one another in a circle; nothing if there are none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_import_goes_down():
    wrong = []
    for module, others in IMPORTS.items():
        if module in TOP:
            continue
        floor, part = place_of(module)
        for other in others:
            below, other_part = (-1, "") if other in TOP else place_of(other)
            if part != other_part and below <= floor:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_no_circle_of_files():
    assert not circle_in(IMPORTS)


def test_search_spaces_knows_no_ray():
    wrong = [
        name
        for name in MODULES
        if name.startswith("search_spaces")
        and any(other.partition(".")[0] == "ray" for other in imported(MODULES[name]))
    ]
    assert not wrong


def test_no_file_is_long():
    lengths = {name: len(f.read_text("utf-8").splitlines()) for name, f in MODULES.items()}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_the_top_level_holds_packages_only():
    entries = [entry for entry in (ROOT / "sase_ray").iterdir() if entry.name != "__pycache__"]
    files = {entry.name for entry in entries if entry.is_file()}
    assert files == {"__init__.py", "__main__.py", "config.py", "console.py"}
    packages = {entry.name for entry in entries if entry.is_dir() and any(entry.iterdir())}
    named = {part.partition(".")[2] for floor in FLOORS for part in floor} - {
        "",
        "config",
        "console",
    }
    assert packages == named | {"protocols"}


def test_imports_of_every_form_count(tmp_path: Path):
    file = tmp_path / "any.py"
    file.write_text(
        "import a.b\nfrom c.d import e, z\ndef f():\n    import g\n    import_module('h.i')\n"
        "if TYPE_CHECKING:\n    from j import k\n"
    )
    assert imported(file, {"c.d.e"}) == {"a.b", "c.d.e", "c.d", "g", "h.i", "j"}


def test_circles_are_found():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


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


def test_public_names_are_functions_and_classes_in_a_fresh_process():
    code = (
        "import inspect, sase_ray\n"
        "for name in sase_ray.__all__:\n"
        "    scope = {}\n"
        "    exec(f'from sase_ray import {name}', scope)\n"
        "    value = scope[name]\n"
        "    assert inspect.isclass(value) or inspect.isfunction(value), (name, value)\n"
        "    assert value.__name__ == name\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_no_module_hides_a_public_name():
    import sase_ray

    below = {name.split(".")[1] for name in MODULES if name.startswith("sase_ray.")}
    assert not below & set(sase_ray.__all__)
