"""The command of `make bench`: run all benchmarks, print the table and write it to `results/`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SCRIPTS = (
    "steps",
    "execution",
    "strategies",
    "hosts",
    "memory",
    "floor",
    "loader",
    "trials",
    "sharing",
    "tables",
)
RUN_ONE = """
import json, sys
sys.path.insert(0, {here!r})
import {name}, harness
device = harness.prepare()
rows = [row.as_dict() for row in {name}.rows()]
print("\\n" + json.dumps({{"machine": harness.machine(device), "rows": rows}}))
"""


def run(name: str) -> dict:
    """Run one script in a separate process, so that none changes what another measures."""
    code = RUN_ONE.format(here=str(HERE), name=name)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parent
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr else "failed"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    console = Console() if Console().is_terminal else Console(width=180)
    chosen = sys.argv[1:] or SCRIPTS
    if unknown := set(chosen) - set(SCRIPTS):
        console.print(f"no benchmark {sorted(unknown)}: choose from {', '.join(SCRIPTS)}")
        sys.exit(2)
    table = Table(title="benchmarks: medians of one run, taken in turn")
    for column in ("what", "against", "value", "target", "holds", "figures"):
        table.add_column(column, justify="right" if column in {"value", "target"} else "left")
    rows, machine = [], {}
    for name in chosen:
        started = time.monotonic()
        console.print(f"{name} ...", end=" ", highlight=False)
        found = run(name)
        console.print(f"{time.monotonic() - started:.0f} s", highlight=False)
        if "error" in found:
            table.add_row(name, "-", "failed", "", "", found["error"])
            continue
        machine = found["machine"]
        for row in found["rows"]:
            rows.append({"benchmark": name, **row})
            table.add_row(
                row["what"],
                row["against"],
                f"{row['value']:.2f} {row['unit']}",
                "" if row["target"] is None else f"{row['better']} {row['target']:g} {row['unit']}",
                {True: "yes", False: "no", None: ""}[row["holds"]],
                row["detail"],
            )
    console.print(table)
    if rows and set(chosen) == set(SCRIPTS):
        label = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower()).strip("-")
        path = HERE / "results" / f"{label}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
        console.print(f"written to {path.relative_to(HERE.parent)}", highlight=False)


if __name__ == "__main__":
    main()
