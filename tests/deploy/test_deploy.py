"""The files that start clusters, held against what reads them, as far as that runs without one."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import ray
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.testing import CliRunner

from sase_ray.cli import app
from sase_ray.config import load_config
from sase_ray.strategies.catalogue import make_strategy
from tests.patience import PATIENCE

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def launched():
    return yaml.safe_load((DEPLOY / "cluster.yaml").read_text())


def test_the_cluster_launcher_takes_its_file(launched):
    validate_config(prepare_config(launched))


def test_the_launched_cluster_wants_a_token_and_hides_the_dashboard(launched):
    assert "-e RAY_AUTH_MODE=token" in launched["docker"]["run_options"]
    assert launched["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    start = " ".join(launched["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "--autoscaling-config=" in start
    _understood_by_ray(start)
    _understood_by_ray(" ".join(launched["worker_start_ray_commands"]))


def test_launched_gpu_nodes_come_when_they_are_asked_for(launched):
    gpu = launched["available_node_types"]["gpu"]
    assert gpu["resources"]["GPU"] >= 1
    assert gpu["min_workers"] == 0
    assert gpu["max_workers"] == launched["max_workers"] > 0
    assert launched["available_node_types"][launched["head_node_type"]]["resources"]["CPU"] == 0


def _understood_by_ray(command):
    """Every option that `ray start` is given is one that it has."""
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    given = re.findall(r"--[a-z-]+", command)
    assert given
    assert set(given) <= known


KUBERAY = ("kuberay-cluster.yaml", "kuberay-job.yaml")


def _kuberay(name):
    """Return the objects of a file by kind, and the cluster's specification."""
    objects = {o["kind"]: o for o in yaml.safe_load_all((DEPLOY / name).read_text())}
    ours = objects.get("RayJob") or objects["RayCluster"]
    assert ours["apiVersion"] == "ray.io/v1"
    assert ours["metadata"]["name"]
    return objects, ours["spec"].get("rayClusterSpec", ours["spec"])


@pytest.mark.parametrize("name", KUBERAY)
def test_a_kuberay_cluster_has_what_its_kind_requires(name):
    _, spec = _kuberay(name)
    assert spec["rayVersion"] == _ray_version()
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert len(groups) > 1
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        _understood_by_ray(" ".join(f"--{p}" for p in ("address", *group["rayStartParams"])))
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["image"]
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
        assert {"name": "shared", "mountPath": "/mnt/shared"} in container["volumeMounts"]


@pytest.mark.parametrize("name", KUBERAY)
def test_a_kuberay_cluster_wants_a_token_and_grows_by_gpu_nodes(name):
    _, spec = _kuberay(name)
    assert spec["authOptions"]["mode"] == "token"
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (worker,) = spec["workerGroupSpecs"]
    assert worker["groupName"]
    assert worker["minReplicas"] == 0
    assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    (container,) = worker["template"]["spec"]["containers"]
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) >= 1


def test_the_kuberay_job_runs_a_comparison_that_is_understood(tmp_path):
    objects, spec = _kuberay("kuberay-job.yaml")
    python, dash_m, package, *arguments = shlex.split(objects["RayJob"]["spec"]["entrypoint"])
    assert (python, dash_m, package) == ("python", "-m", "sase_ray")
    assert CliRunner().invoke(app.app, [*arguments, "--help"]).exit_code == 0
    command, option, path = arguments
    assert (command, option) == ("compare", "--config")
    pod = spec["headGroupSpec"]["template"]["spec"]
    (mounted,) = (v for v in pod["volumes"] if "configMap" in v)
    content = objects["ConfigMap"]
    assert mounted["configMap"]["name"] == content["metadata"]["name"]
    assert {"name": mounted["name"], "mountPath": os.path.dirname(path)} in pod["containers"][0][
        "volumeMounts"
    ]
    (tmp_path / "config.yaml").write_text(content["data"][os.path.basename(path)])
    config = load_config(tmp_path / "config.yaml")
    assert config.results.startswith("/mnt/shared/")
    assert str(config.data.root).startswith("/mnt/shared/")
    for name in config.strategies:
        make_strategy(name)
    # No worker is there when it starts: its trials ask for them, and say what they want.
    (worker,) = spec["workerGroupSpecs"]
    assert worker["replicas"] == 0
    assert config.resources.trials_at_once
    assert 0 < (config.resources.gpus_per_trial or 0) <= 1


def test_no_file_holds_a_token():
    for file in DEPLOY.iterdir():
        text = file.read_text()
        assert not re.search(r"RAY_AUTH_TOKEN[=:]\s*['\"]?[\w-]", text), file.name
        assert not re.search(r"\b[0-9a-f]{32,}\b", text), file.name


def _ray_version():
    """The Ray of the image, to which all files agree."""
    (version,) = re.findall(r"^ARG RAY_VERSION=(\S+)$", _dockerfile(), re.MULTILINE)
    return version


def _dockerfile():
    return (DEPLOY / "Dockerfile").read_text()


def test_the_image_is_built_of_what_there_is():
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", _dockerfile(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert sources
    assert all((ROOT / source).exists() for source in sources)
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= set(sources)
    assert {"pyproject.toml", PROJECT["readme"]} <= set(sources)
    (installed,) = re.findall(r"pip install .*?\s\.(?:\[(.*)\])?$", _dockerfile(), re.MULTILINE)
    extras = {extra for extra in installed.split(",") if extra}
    assert extras <= set(PROJECT["optional-dependencies"])


def test_the_image_has_the_python_and_the_ray_that_the_project_needs():
    (major, minor) = re.findall(r"-py(\d)(\d+)", _dockerfile())[0]
    assert f"{major}.{minor}" in SpecifierSet(PROJECT["requires-python"])
    (needed,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "ray")
    assert _ray_version() in needed.specifier
    assert ray.__version__ in needed.specifier


def test_the_image_says_how_it_is_used():
    (command,) = re.findall(r"^CMD (.+)$", _dockerfile(), re.MULTILINE)
    name, *arguments = yaml.safe_load(command)
    assert PROJECT["scripts"][name] == "sase_ray.cli.app:main"
    assert CliRunner().invoke(app.app, arguments).exit_code == 0
    # `ray up` and KubeRay start a shell in the image.
    assert "\nENTRYPOINT" not in _dockerfile()


def test_the_slurm_script_is_a_script():
    script = DEPLOY / "slurm.sh"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert "ray stop" not in [line.strip() for line in text.splitlines()]
    commands = re.findall(r"^ +ray start (.+)&$", text, re.MULTILINE)
    assert len(commands) == 2
    _understood_by_ray(" ".join(commands))


SRUN = """#!/bin/bash
# Runs the command here, whichever node it was meant for.
echo "srun $*" >>"$SRUN_LOG"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


@pytest.mark.ray
@pytest.mark.slow
def test_the_slurm_script_compares_on_all_nodes_of_its_job(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/bash\nprintf 'n1\\nn2\\n'\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    settings = {
        "dataset": "digits",
        "space": "sase_tiny",
        "backbone": {"name": "resnet8", "options": {"width": 4}},
        "data": {"train_size": 96, "validation_size": 60},
        "proxy": {"epochs": 2, "batch_size": 32, "averaging": 0, "seeds": 1, "warm_host": None},
        "final": {"train_size": 200, "epochs": 1},
        "strategies": ["random"],
        "baselines": [],
        "budget": 240,
        "seeds": 1,
        "run": "slurm",
        "results": str(tmp_path / "results"),
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings))
    folder = Path("/tmp") / f"sase-slurm-{secrets.token_hex(3)}"  # Ray's sockets need a short path
    folder.mkdir()
    path = [str(tools), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "SRUN_LOG": str(tmp_path / "srun.log"),
        "SLURM_JOB_ID": str(_job_with_a_free_port()),
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
    }
    try:
        done = subprocess.run(
            [DEPLOY / "slurm.sh", "--config", "small.yaml"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = tmp_path / "results" / "slurm"
    assert set(pd.read_csv(results / "strategies.csv")["name"]) == {"random"}
    # A node of one CPU each.
    assert yaml.safe_load((results / "config.yaml").read_text())["hardware"]["cpus"] == 2
    head, worker = (tmp_path / "srun.log").read_text().splitlines()
    assert "--nodelist=n1" in head
    assert "ray start --head" in head
    assert "--nodes=1" in worker
    assert "--exclude=n1" in worker
    assert "TOKEN" not in head + worker


def _job_with_a_free_port():
    """A number of a Slurm job for which the script takes a port that nobody has."""
    while True:
        number = secrets.randbelow(10_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20_000 + number)) != 0:
                return number
