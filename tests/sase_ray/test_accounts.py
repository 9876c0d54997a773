"""Processes of a user id without a name and without a home, as containers run them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.patience import PATIENCE

NAMELESS = """
import os, pwd

def unknown(*_):
    raise KeyError("getpwuid(): uid not found: 54321")

pwd.getpwuid = pwd.getpwnam = unknown
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
"""


@pytest.mark.parametrize(
    "code",
    [
        "import sase_ray.commands.compare, sase_ray.commands.adapt, getpass; getpass.getuser()",
        "import sys; sys.argv = ['sase-ray', 'strategies']; "
        "from sase_ray.cli.app import main; main()",
    ],
)
def test_everything_is_imported_without_a_home_and_a_name(code):
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS + code], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr


def test_a_user_with_a_home_keeps_it():
    code = "import os; before = dict(os.environ); import sase_ray; assert os.environ == before"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
