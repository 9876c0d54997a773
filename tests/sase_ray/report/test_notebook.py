"""The committed notebook runs from top to bottom, and shows what it computes."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

RESULTS = Path(__file__).parents[3] / "results"


def shown(notebook):
    """The kinds of a notebook's outputs, cell by cell; of pictures no content."""
    return [
        [(o.output_type, sorted(o.get("data", {}))) for o in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
def test_the_notebook_runs_and_its_outputs_are_those_committed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(RESULTS.parent))
    shutil.copytree(RESULTS / "reference", tmp_path / "reference")
    committed = nbformat.read(RESULTS / "analysis.ipynb", as_version=4)
    nbformat.validate(committed)
    executed = nbformat.read(RESULTS / "analysis.ipynb", as_version=4)
    client = NotebookClient(
        executed, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()  # raises what a cell raises
    assert shown(executed) == shown(committed)
    assert sum("image/png" in kinds for cell in shown(committed) for _, kinds in cell) >= 10
    tables = [
        [o.data["text/plain"] for c in notebook.cells for o in c.get("outputs", ()) if "text/html"
         in o.get("data", {})]
        for notebook in (executed, committed)
    ]  # fmt: skip
    assert tables[0] == tables[1]


def test_the_notebook_is_short_cells_and_names_no_place_of_a_machine():
    notebook = nbformat.read(RESULTS / "analysis.ipynb", as_version=4)
    assert all(len(c.source.splitlines()) <= 20 for c in notebook.cells)
    assert str(Path.home()) not in nbformat.writes(notebook)
    assert "/tmp/" not in nbformat.writes(notebook)
