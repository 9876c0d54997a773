"""How a cluster is shared, on clusters of several nodes and with pretended GPUs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sase_ray.cluster import connection
from sase_ray.cluster import slots as slots_module
from sase_ray.config import ResourcesConfig
from search_spaces.errors import UserError
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]


@pytest.fixture
def slots(monkeypatch):
    """Count the slots of a cluster with these nodes: ``slots([{"CPU": 4}], cpus_per_trial=2)``."""

    def count(nodes, dead=(), **config):
        alive = [{"Alive": True, "Resources": node} for node in nodes]
        gone = [{"Alive": False, "Resources": node} for node in dead]
        monkeypatch.setattr(connection.ray, "nodes", lambda: [*gone, *alive])
        return slots_module.slots_of(ResourcesConfig(**config))

    return count


@pytest.mark.parametrize(
    ("nodes", "config", "gpus", "total"),
    [
        ([{"CPU": 2}], {}, 0, 2),
        ([{"CPU": 3}, {"CPU": 3}], {"cpus_per_trial": 2}, 0, 2),
        ([{"CPU": 1}], {"cpus_per_trial": 0.1}, 0, 10),
        ([{"CPU": 16, "GPU": 1}], {}, 0.25, 4),
        ([{"CPU": 2, "GPU": 1}], {}, 0.25, 2),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 64}], {}, 0.25, 8),
        ([{"CPU": 0}, {"CPU": 8, "GPU": 8}], {"gpus_per_trial": 1}, 1, 8),
        ([{"CPU": 8, "GPU": 1}], {"gpus_per_trial": 0}, 0, 8),
        ([{"CPU": 8, "GPU": 1}], {"gpus_per_trial": 0.3}, 0.3, 3),
    ],
)
def test_slots_count_what_fits_on_each_node(nodes, config, gpus, total, slots):
    counted = slots(nodes, dead=[{"CPU": 99, "GPU": 9}], **config)
    assert counted.total == total
    assert counted.trial.gpus == gpus


@pytest.mark.parametrize(
    ("total", "searches", "at_once", "side_by_side"),
    [(1, 1, 1, 1), (1, 9, 1, 1), (4, 9, 1, 4), (8, 3, 2, 4), (8, 1, 8, 1), (9, 2, 4, 2)],
)
def test_slots_are_shared_without_asking_for_more_than_there_are(
    total, searches, at_once, side_by_side, slots
):
    shared = slots([{"CPU": total}])
    assert shared.share(searches) == at_once
    assert shared.has_room_for(side_by_side, at_once)
    assert not shared.has_room_for(side_by_side + 1, at_once)


def test_a_given_number_of_trials_waits_for_nodes_that_may_come(slots):
    growing = slots([{"CPU": 2}], trials_at_once=3, gpus_per_trial=1)
    assert growing.total == 0
    assert growing.share(9) == 3
    assert growing.has_room_for(9, 3)


@pytest.mark.parametrize(
    ("nodes", "config", "workers"),
    [
        ([{"CPU": 2}], {}, 2),
        ([{"CPU": 3}, {"CPU": 3}], {"cpus_per_trial": 2}, 2),
        # A share of a GPU is enough for a trial, not for a worker.
        ([{"CPU": 16, "GPU": 2}, {"CPU": 1, "GPU": 8}, {"CPU": 64}], {}, 3),
        ([{"CPU": 4, "GPU": 2}], {"gpus_per_trial": 0}, 4),
    ],
)
def test_each_worker_of_a_final_training_has_a_gpu_of_its_own(nodes, config, workers, slots):
    counted = slots(nodes, **config)
    counted.check_workers(workers)
    with pytest.raises(UserError, match=f"final.workers is {workers + 1}, .* room for {workers},"):
        counted.check_workers(workers + 1)


def test_one_worker_may_share_a_gpu(slots):
    slots([{"CPU": 1, "GPU": 1}], gpus_per_trial=0.5).check_workers(1)


GIB = 2**30


@pytest.mark.parametrize(
    ("memory", "config", "shares"),
    [
        (140 * GIB, {}, (1 / 8, 1 / 5)),  # 22 would fit: no more than eight to a GPU
        (24 * GIB, {}, (1 / 3, 1.0)),  # 24 / (1.3 * 4 + 1) = 3.9
        (8 * GIB, {}, (1.0, 1.0)),
        (24 * GIB, {"gpus_per_trial": 0.5}, (0.5, 1.0)),
        (0, {}, (0.25, 0.25)),  # a GPU that cannot be asked
    ],
)
def test_shares_follow_from_what_a_training_takes_of_the_memory(
    memory, config, shares, slots, monkeypatch
):
    monkeypatch.setattr(slots_module, "_gpu_memory", lambda: memory)
    monkeypatch.setattr(
        connection.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 64, "GPU": 2}}]
    )
    found = slots_module.slots_of(ResourcesConfig(**config), lambda: (4 * GIB, 20 * GIB))
    assert (found.trial.gpus, found.supernet.gpus) == shares


@pytest.mark.parametrize(
    ("nodes", "config", "told"),
    [
        ([{"CPU": 8}], {"gpus_per_trial": 0.5}, "gpus_per_trial is 0.5, .* has 0 GPUs"),
        ([{"CPU": 8, "GPU": 1}] * 2, {"gpus_per_trial": 2}, "largest node .* has 1 GPUs"),
        ([{"CPU": 8}] * 2, {"cpus_per_trial": 9}, "cpus_per_trial is 9, .* has 8 CPUs"),
        ([{"CPU": 8}, {"CPU": 1, "GPU": 1}], {"cpus_per_trial": 2}, "2 CPUs and 0.25 GPUs"),
    ],
)
def test_a_trial_that_no_node_can_hold_is_refused(nodes, config, told, slots):
    with pytest.raises(UserError, match=told):
        slots(nodes, **config)


TWO_NODES = """
import ray
from ray.cluster_utils import Cluster
from sase_ray.cluster.connection import connected
from sase_ray.config import ResourcesConfig

nodes = Cluster()
nodes.add_node(num_cpus=3, num_gpus=1, include_dashboard=False)
nodes.add_node(num_cpus=8, num_gpus=1)
try:
    with connected(ResourcesConfig(address=nodes.address)) as slots:
        print("slots", slots.total, slots.trial.cpus, slots.trial.gpus)

        @ray.remote(num_cpus=slots.trial.cpus, num_gpus=slots.trial.gpus)
        def trial():
            return ray.get_runtime_context().get_node_id()

        print("ran on", len({*ray.get([trial.remote() for _ in range(slots.total)])}) > 0)
    print("left", not ray.is_initialized())
    with connected(ResourcesConfig(address=nodes.address, gpus_per_trial=1)) as slots:
        print("whole", slots.total)
finally:
    nodes.shutdown()
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_share_of_a_gpu_is_counted_over_two_real_nodes():
    done = subprocess.run(
        [sys.executable, "-c", TWO_NODES], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # The first node has room for three trials by its CPUs, the second for four by its GPU.
    assert "slots 7 1.0 0.25" in done.stdout
    assert "left True" in done.stdout
    assert "whole 2" in done.stdout


MEETING = """
import os, time
from pathlib import Path
import ray
from search_spaces.ops import register_op

@register_op("channel_excite", "meeting")
def meeting(z):
    '''A gate that waits until two trials compute it.'''
    here, markers = ray.get_runtime_context(), Path({markers!r})
    share = here.get_assigned_resources()["GPU"]
    (markers / f"{{here.get_node_id()}}-{{share}}-{{os.getpid()}}").touch()
    end = time.monotonic() + 900
    while len(list(markers.iterdir())) < 2:
        assert time.monotonic() < end, "no other trial ran at the same time"
        time.sleep(0.01)
    return z.sigmoid()
"""

LATE_NODE = """
import sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from sase_ray import search

folder, space = map(Path, sys.argv[1:])
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
reports = []

def run():
    reports.append(search(
        "random", dataset="digits", space=str(space), budget=4 * 116,
        backbone={"name": "resnet8", "options": {"width": 4}},
        data={"train_size": 96, "validation_size": 60},
        proxy={"epochs": 1, "batch_size": 32, "averaging": 0, "seeds": 1, "warm_host": None},
        resources={"address": nodes.address, "gpus_per_trial": 0.5, "trials_at_once": 2},
        results=str(folder), run="run",
    ))

searching = threading.Thread(target=run, daemon=True)
searching.start()
try:
    while not (folder / "run" / "state").exists() and searching.is_alive():
        time.sleep(0.05)
    time.sleep(3)
    late = nodes.add_node(num_cpus=2, num_gpus=1).node_id  # which only the main thread may do
    searching.join()
    print("trials", len(reports[0].outcome.history.trials()), "late", late)
finally:
    nodes.shutdown()
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.full
def test_trials_wait_for_a_node_that_joins_late_and_share_its_gpu(write_space, tmp_path):
    (markers := tmp_path / "markers").mkdir()
    choices = {"refine_excite": ["meeting"], "spatial_excite": ["affine", "conv3x3"]}
    choices |= {"channel_squeeze": ["gap", "gap_std"]}
    path = write_space(choices, MEETING.format(markers=str(markers)))
    done = subprocess.run(
        [sys.executable, "-c", LATE_NODE, str(tmp_path / "results"), str(path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    late = done.stdout.split()[-1]
    assert f"trials 4 late {late}" in done.stdout
    assert {marker.name.rpartition("-")[0] for marker in markers.iterdir()} == {f"{late}-0.5"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.full
def test_ray_job_submit_runs_a_comparison_on_the_cluster(head, tiny, tmp_path):
    address, environment = head
    copy = tmp_path / "copy"
    for package in ("sase_ray", "trainables", "search_spaces"):
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    small = {**tiny, "strategies": ["random"], "seeds": 1, "budget": 240, "run": "submitted"}
    (copy / "small.yaml").write_text(yaml.safe_dump({**small, "baselines": ["none"]}))
    submit = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", address]
    submit += ["--working-dir", str(copy), "--", sys.executable, "-m", "sase_ray", "compare"]
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            [*submit, "--config", "small.yaml"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        # The dashboard answers before the agent that runs jobs is there.
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = tmp_path / "results" / "submitted"
    table = pd.read_csv(folder / "strategies.csv")
    assert set(table["name"]) == {"random", "none"}
    # It ran on that connection, not on one of its own.
    assert yaml.safe_load((folder / "config.yaml").read_text())["hardware"]["cpus"] == 2
    assert "test accuracy in %" in done.stdout
    assert "No strategy" not in done.stdout


def test_a_cluster_of_our_own_that_is_slow_to_start_gets_another_chance(monkeypatch):
    slow = Exception("The current node timed out during startup. This could happen because")
    tries, needed = [], 3

    def init(address):
        tries.append(address)
        if len(tries) < needed:
            raise slow

    monkeypatch.setattr(connection, "_init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    connection._connect(None)
    assert tries == ["local"] * 3
    tries.clear()
    needed = 99
    with pytest.raises(UserError, match=r"no Ray cluster at 'local': .*timed out during startup"):
        connection._connect(None)
    assert tries == ["local"] * connection.MAX_STARTS
    tries.clear()
    monkeypatch.setattr(connection, "_check_reachable", lambda address, source: None)
    with pytest.raises(UserError, match=r"no Ray cluster at .*timed out during startup"):
        connection._connect("10.0.0.1:6379")


@pytest.fixture
def listen():
    """Listen on a port and answer what connects: ``listen(b"HTTP/1.1 400")``; returns the port."""
    servers = []

    def start(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    clients.append(client)
                    client.sendall(answer)

        clients = []
        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def refuse(monkeypatch):
    """Return the sentence on an address that Ray must not even be asked for, and the seconds."""

    def never(address):
        raise AssertionError("Ray would try for a minute")

    monkeypatch.setattr(connection, "_init", never)

    def connect(address, through_environment):
        monkeypatch.setenv("RAY_ADDRESS", address if through_environment else "no:1")
        began = time.monotonic()
        with pytest.raises(UserError) as told:
            connection._connect(None if through_environment else address)
        assert ("RAY_ADDRESS" in str(told.value)) == through_environment
        return str(told.value), time.monotonic() - began

    return connect


@pytest.mark.parametrize("through_environment", [True, False])
@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://head:8265", "sase-ray submit"),
        ("https://me:secret@head", "sase-ray submit"),
        ("ray://head:10001", "Ray Client"),
        ("redis://head:6379", "cannot use"),
        ("127.0.0.1:1", "refused"),
        ("127.0.0.1:99999", "no Ray cluster at"),
        ("127.0.0.1:port", "port"),
        ("no.such.host.invalid:6379", "6379"),
    ],
)
def test_an_address_of_another_kind_is_refused_at_once(address, told, through_environment, refuse):
    sentence, seconds = refuse(address, through_environment)
    assert told in sentence
    assert "secret" not in sentence
    assert seconds < 10


@pytest.mark.parametrize(
    ("answer", "told"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Ray head"), (b"", "no answer within")],
)
def test_a_port_of_something_else_is_refused_within_seconds(answer, told, listen, refuse):
    sentence, seconds = refuse(f"127.0.0.1:{listen(answer)}", False)
    assert told in sentence
    assert seconds < 10


def test_the_message_of_ray_ends_with_a_sentence():
    lines = "Connection failed.\nFirst,\n  look at this. " + "Then at that. " * 40
    told = connection._first_sentences(Exception(lines))
    assert told.startswith("Connection failed. First, look at this. Then at that")
    assert told.endswith("Then at that")
    assert connection._first_sentences(Exception("x" * 999)) == "x" * 300 + "..."
    assert connection._first_sentences(OSError()) == "OSError"


def test_sockets_of_our_own_cluster_are_in_a_short_folder(monkeypatch, capsys):
    longest = 39
    for length, expected in ((longest, None), (longest + 1, connection.SHORT_FOLDER)):
        monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * (length - 1))
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        assert connection._short_folder() == expected
    assert "RAY_TMPDIR names another folder, of at most 39" in capsys.readouterr().err
    monkeypatch.setenv("RAY_TMPDIR", "/short")
    assert connection._short_folder() == "/short", "Ray's dashboard has sockets in TMPDIR, too"
    monkeypatch.setenv("RAY_TMPDIR", "/" + "é" * 30)  # two bytes each
    with pytest.raises(UserError, match=r"RAY_TMPDIR .* at most 39 characters"):
        connection._short_folder()


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_starts_where_the_temporary_folder_is_deep(tmp_path):
    deep = tmp_path / ("slurm" * 20)
    deep.mkdir()
    code = (
        "from sase_ray.cluster.connection import connected\n"
        "from sase_ray.config import ResourcesConfig\n"
        "with connected(ResourcesConfig()) as slots: print('slots', slots.total)"
    )
    environment = {**os.environ, "TMPDIR": str(deep)}
    environment.pop("RAY_TMPDIR", None)
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "slots" in done.stdout
