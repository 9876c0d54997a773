"""Jobs on a cluster that is reached over HTTP: what is sent, what is told, what goes wrong."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import yaml
from ray.dashboard.modules.job.common import JobInfo
from ray.job_submission import JobStatus

from sase_ray.cli import app
from sase_ray.cluster import job_client
from search_spaces.errors import UserError
from tests.patience import PATIENCE


@pytest.fixture
def web_server():
    """A server that knows nothing of jobs: its address, and the requests that it got."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names are the base class's

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


@pytest.fixture
def refuse(tmp_path, monkeypatch, capsys):
    """Run a command line that must be refused; returns its one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text("{dataset: digits, results: /mnt/shared/results}")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sase-ray", *arguments])
        with pytest.raises(SystemExit) as ended:
            app.main()
        printed = capsys.readouterr()
        assert ended.value.code == 2
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1, printed.err
        return printed.err

    return run


SUBMIT_GOOD = ("submit", "--config", "good.yaml")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("seeds: [1]", "my.yaml: seeds"),
        ("strategies: [randon]", "did you mean 'random'"),
        ("{strategies: [asha], strategy_options: {asha: {factor: 3}}}", "factor"),
        ("baselines: [sse]", "did you mean"),
        ("space: none.yaml", "space file none.yaml"),
        ("space: sase_tinny", "did you mean 'sase_tiny'"),
        ("results: mine", "name one that all nodes share"),
        ("{results: /mnt/r, data: {root: images}}", "data.root: 'images' is not sent"),
        ("{results: /mnt/r, reliability: results/study}", "reliability: 'results/study'"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_before_anything_is_sent(
    content, told, refuse, tmp_path, web_server
):
    address, requests = web_server
    (tmp_path / "my.yaml").write_text(content)
    line = refuse("submit", "--config", "my.yaml", "--address", address)
    assert told in line
    assert requests == []


def test_a_file_that_would_not_be_sent_is_refused(refuse, tmp_path, write_space, web_server):
    address, requests = web_server
    space = write_space({}, "x = 1")
    (tmp_path / "sub").mkdir()
    outside = refuse(*SUBMIT_GOOD, "--address", address, "--working-dir", "sub")
    assert "good.yaml does not lie in --working-dir" in outside
    moved = space.rename(tmp_path / "sub" / "own.yaml")
    moved.write_text(moved.read_text().replace("operations.py", "../operations.py"))
    line = refuse(*SUBMIT_GOOD, "--address", address, "--set", "space=sub/own.yaml")
    assert "operations.py is not sent with the job" in line
    assert "'a b'" in refuse(*SUBMIT_GOOD, "--address", address, "--name", "a b")
    assert requests == []


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "http://", "http://h:x"])
def test_an_address_that_takes_no_jobs_is_refused(address, refuse):
    assert "expected that of the cluster's dashboard" in refuse(*SUBMIT_GOOD, "--address", address)


def test_a_server_that_is_not_a_cluster_is_one_line(refuse, web_server):
    address, _ = web_server
    line = refuse(*SUBMIT_GOOD, "--address", address)
    assert address in line


def test_an_address_where_nothing_listens_is_told_at_once(refuse):
    begun = time.monotonic()
    line = refuse(*SUBMIT_GOOD, "--address", "http://me:secret@127.0.0.1:9")
    assert "cannot reach the cluster at http://127.0.0.1:9" in line
    assert "secret" not in line
    assert time.monotonic() - begun < 10


def test_a_server_that_does_not_answer_is_not_waited_for(refuse, monkeypatch):
    monkeypatch.setattr(job_client, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        assert "no answer within" in refuse(*SUBMIT_GOOD, "--address", address)


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        (None, {}, "http://127.0.0.1:8265"),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, "http://127.0.0.1:8265"),
        (None, {"RAY_ADDRESS": "https://ray"}, "https://ray"),
        (None, {"RAY_ADDRESS": "http://a", "RAY_API_SERVER_ADDRESS": "http://b"}, "http://b"),
        ("http://c:1/", {"RAY_API_SERVER_ADDRESS": "http://b"}, "http://c:1"),
    ],
)
def test_the_address_is_as_given_else_of_the_environment_else_of_this_machine(
    given, environment, address, monkeypatch
):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert job_client.api_address(given) == address


def test_a_password_in_the_address_is_not_shown():
    with pytest.raises(UserError) as told:
        job_client.api_address("ftp://me:secret@head")
    assert "ftp://head" in str(told.value)
    assert "secret" not in str(told.value)


class Interrupted:
    """A cluster whose job logs four lines; connections to the log break off in the midst of one."""

    log = "one\ntwo\nthree\nfour"

    def __init__(self, told):
        self.told = list(told)

    def get_address(self):
        return "http://head"

    def get_job_info(self, _):
        state = JobStatus.RUNNING if self.told else JobStatus.FAILED
        message = "failed with exit code 3, last available logs (truncated):\nthree\nfour"
        return JobInfo(state, "python", message=message)

    def get_job_logs(self, _):
        return self.log[:9] if self.told else self.log

    async def tail_job_logs(self, _):
        yield self.log[: self.told.pop(0)]
        raise RuntimeError("broken")


@pytest.mark.parametrize("told", [[2, 6, 15], [0, 0], [18]])
def test_a_log_is_told_once_however_often_the_connection_breaks(told, monkeypatch):
    monkeypatch.setattr(job_client.time, "sleep", lambda _: None)
    pieces = []
    job = job_client.follow(Interrupted(told), "x", pieces.append)
    assert "".join(pieces) == "one\ntwo\nthree\nfour"
    assert job.status == JobStatus.FAILED


@pytest.fixture
def sase_ray(head, tmp_path):
    """Run a command against the head: ``sase_ray("submit", ...)``; other variables by name."""
    return _runner(head, tmp_path, [sys.executable, "-m", "sase_ray"])


@pytest.fixture
def ray_job(head, tmp_path):
    """Run Ray's own command against the head: ``ray_job("status", "x")``."""
    return _runner(head, tmp_path, [str(Path(sys.executable).with_name("ray")), "job"])


def _runner(head, tmp_path, command):
    address, environment = head

    def run(*arguments, **variables):
        return subprocess.run(
            [*command, *arguments, "--address", address],
            env=environment | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


@pytest.fixture
def endless(tiny, tmp_path):
    """A configuration of more work than a test waits for."""
    settings = {**tiny, "strategies": ["random"], "budget": 10**9, "seeds": 1}
    (tmp_path / "endless.yaml").write_text(yaml.safe_dump(settings))
    return "endless.yaml"


@pytest.mark.ray
@pytest.mark.slow
def test_a_submitted_comparison_is_followed_to_its_end(sase_ray, tiny, write_space, tmp_path):
    operations = """
from sase_ray import register_op

@register_op("channel_squeeze", "median")
def median(x):
    return x.flatten(2).median(dim=2).values[..., None, None]
"""
    space = write_space({"channel_squeeze": ["gap", "median"]}, operations)
    (tmp_path / "spaces").mkdir()
    for file in (space, tmp_path / "operations.py"):
        file.rename(tmp_path / "spaces" / file.name)
    settings = {**tiny, "strategies": ["random"], "budget": 10**6, "seeds": 1, "baselines": []}
    (tmp_path / "my small.yaml").write_text(
        yaml.safe_dump({**settings, "space": "spaces/own.yaml", "run": "submitted"})
    )
    options = ("--set", "budget=240", "--name", "small")
    done = sase_ray("submit", "--config", "my small.yaml", "--follow", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("submitted small\n")
    assert "test accuracy in %" in done.stdout
    assert "\nsmall: SUCCEEDED" in done.stdout
    folder = tmp_path / "results" / "submitted"
    assert set(pd.read_csv(folder / "strategies.csv")["name"]) == {"random"}
    recorded = yaml.safe_load((folder / "config.yaml").read_text())
    assert recorded["config"]["space"] == "spaces/own.yaml"
    assert recorded["config"]["budget"] == 240
    # A name that is taken cannot be given again.
    again = sase_ray("submit", "--config", "my small.yaml", *options)
    assert again.returncode == 2
    assert "small" in again.stderr
    assert again.stderr.count("\n") == 1


@pytest.mark.ray
@pytest.mark.slow
def test_a_detached_job_is_left_to_the_commands_of_ray_that_are_named(sase_ray, ray_job, endless):
    submitted = sase_ray("submit", "--config", endless, "--detach")
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.split()[1]
    assert f"`ray job stop {job} --address" in submitted.stdout
    assert ray_job("stop", job).returncode == 0
    assert "STOPPED" in ray_job("status", job, "--log-color=false").stdout.upper()


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_stops_the_following_and_not_the_job(ray_job, head, endless, tmp_path):
    address, environment = head
    command = [sys.executable, "-m", "sase_ray", "submit", "--config", endless, "--follow"]
    following = subprocess.Popen(
        [*command, "--address", address, "--name", "long"],
        env=environment | {"PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in following.stdout:
        if "begins, budget" in line:
            break
    following.send_signal(signal.SIGINT)
    _, told = following.communicate(timeout=PATIENCE)
    assert following.returncode == 1
    assert told.startswith("the job continues: ")
    assert f"`ray job stop long --address {address}`" in told
    assert told.count("\n") == 1
    assert "RUNNING" in ray_job("status", "long", "--log-color=false").stdout.upper()
    assert ray_job("stop", "long").returncode == 0


@pytest.mark.ray
@pytest.mark.slow
def test_a_working_dir_is_what_the_job_runs_and_its_failure_is_told(sase_ray, tmp_path):
    package = tmp_path / "sase_ray"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import sys; print('sent', open('sub/c.yaml').read(), sys.argv[1:], end=''); sys.exit(3)"
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.yaml").write_text("results: /mnt/shared")
    options = ("--config", str(tmp_path / "sub" / "c.yaml"), "--set", "data.root=/mnt/a b")
    # With a safe path, the command that is run here is the installed one.
    done = sase_ray("submit", *options, "--working-dir", ".", "--follow", PYTHONSAFEPATH="1")
    assert done.returncode == 1, done.stdout + done.stderr
    arguments = ["compare", "--config", "sub/c.yaml", "--set", "data.root=/mnt/a b"]
    expected = f"sent results: /mnt/shared {arguments}"
    assert expected in done.stdout
    assert done.stdout.splitlines()[-1].startswith("raysubmit_")
    assert "FAILED" in done.stdout
    assert "exit code 3" in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_who_has_not_the_token_is_told_so_and_no_secret_is_shown(sase_ray, tmp_path):
    (tmp_path / "good.yaml").write_text("{dataset: digits, results: /mnt/shared/results}")
    cases = [
        ({"RAY_AUTH_TOKEN": "wrong-token"}, "refuses the token"),
        ({"RAY_AUTH_TOKEN": "wrong\ntoken"}, "is not one line of text"),
        ({"RAY_AUTH_TOKEN": "", "HOME": str(tmp_path)}, "needs a token, and none is set"),
        ({"RAY_AUTH_MODE": "disabled"}, "needs a token"),
    ]
    for variables, told in cases:
        done = sase_ray(*SUBMIT_GOOD, **variables)
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
        assert "RAY_AUTH_TOKEN" in done.stderr
        for token in ("wrong-token", "wrong", variables.get("RAY_AUTH_TOKEN") or "\0"):
            assert token not in done.stderr


@pytest.fixture
def proxy(monkeypatch, web_server):
    """Set a proxy that answers 404 to everything, or none that answers; returns its address."""

    def use(alive):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = web_server[0] if alive else f"http://127.0.0.1:{port}"
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, address.replace("//", "//me:secret@"))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        return address

    return use


@pytest.mark.parametrize("alive", [True, False])
def test_a_proxy_is_named_as_the_cause(alive, proxy):
    address = proxy(alive)
    with pytest.raises(UserError) as told:
        job_client.connect("http://head.example:8265")
    assert f"through the proxy {address}" in str(told.value)
    assert "add head.example to no_proxy" in str(told.value)
    assert "secret" not in str(told.value)


def test_no_proxy_stands_before_a_cluster_on_this_machine(proxy, monkeypatch):
    proxy(alive=False)
    requests = []

    class Here(BaseHTTPRequestHandler):
        def do_HEAD(self):
            requests.append(self.path)
            self.send_error(404)

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with pytest.raises(UserError) as told:
        job_client.connect(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    assert requests
    assert "proxy" not in str(told.value)
