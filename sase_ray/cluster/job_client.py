"""A comparison as a job of a Ray cluster that this machine only reaches over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sase_ray.config import Config, load_config
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace, space_names

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ANSWER_SECONDS = 10
"""Time within which a cluster has to answer at all."""
AGENT_SECONDS = 60
"""Time for which a head that has just started may have nobody yet to run jobs."""
STOP_SECONDS = 30
"""Time for which `stop` waits for the job's end; Ray kills what ignores its signal for 3 s."""

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_TOKEN = (
    "set RAY_AUTH_MODE=token, and the cluster's token in RAY_AUTH_TOKEN, or in the file that "
    "RAY_AUTH_TOKEN_PATH names or ~/.ray/auth_token"
)


@dataclass(frozen=True)
class Job:
    """What a cluster knows of a job.

    Attributes:
        id: its submission id.
        state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: one line about the state.
        seconds: how long it has run, or ran; None before it starts.
    """

    id: str
    state: str
    message: str
    seconds: float | None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in _ENDED


def submit(
    config: str | Path,
    assignments: Sequence[str] = (),
    *,
    address: str | None = None,
    working_dir: str | Path | None = None,
    job_id: str | None = None,
) -> str:
    """Start ``python -m sase_ray compare --config ...`` as a job of a cluster.

    The job gets a folder with the configuration, and with the space file and its operation files
    where the configuration names a space by its path. They lie there as they lie here.

    Args:
        config: configuration file, as for `load_config`.
        assignments: texts such as ``proxy.epochs=5``.
        address: of the cluster's dashboard: see `api_address`.
        working_dir: folder to send in place of these files alone, which it must contain; say of
            this project, where the cluster has not got it installed. What its .gitignore names
            stays here.
        job_id: what to call the job; default is a name that Ray makes up.

    Returns:
        The job's id.

    Raises:
        UserError: the configuration is wrong or cannot work on the cluster, and nothing was sent;
            or the cluster is out of reach, wants another token, or has a job of that name.
    """
    if job_id is not None and not _is_id(job_id):
        raise UserError(f"name {job_id!r}: expected letters, digits, '.', '_' and '-'")
    settings = load_config(config, assignments=assignments)
    base, files = _needed_files(Path(config), settings)
    _check(settings, in_working_dir=working_dir is not None)
    if working_dir is not None:
        base = _absolute(working_dir)
        outside = [file for file in files if not file.is_relative_to(base)]
        if outside:
            raise UserError(f"{outside[0]} does not lie in --working-dir {base}, so is not sent")
    command = ["python", "-m", "sase_ray", "compare", "--config", str(files[0].relative_to(base))]
    for text in assignments:
        command += ["--set", text]
    if len(files) > 1 and settings.space != str(files[1].relative_to(base)):
        command += ["--set", f"space={files[1].relative_to(base)}"]
    client = _client(address)
    with tempfile.TemporaryDirectory(prefix="sase-ray-") as folder:
        if working_dir is None:
            for file in files:
                target = Path(folder) / file.relative_to(base)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        sent = folder if working_dir is None else str(base)
        return _start(client, shlex.join(command), sent, job_id)


def follow(job_id: str, address: str | None = None, write: Callable[[str], object] = print) -> Job:
    """Hand a job's log on, line by line from its beginning, until the job has ended.

    Args:
        job_id: what `submit` returned.
        address: see `api_address`.
        write: called with each line, without its end.

    Raises:
        UserError: there is no such job, or the cluster cannot be reached any more.
    """
    client = _client(address)
    _job(client, job_id)
    written = 0

    def write_new(lines: Iterable[str]) -> None:
        nonlocal written
        for number, line in enumerate(lines):
            if number >= written:
                write(line)
                written = number + 1

    while True:
        write_new(_lines(_tail(client, job_id)))
        job = _job(client, job_id)
        # What a connection that broke off did not tell, or that no proxy lets through.
        with _plainly(client.get_address(), job_id):
            log = client.get_job_logs(job_id)
        write_new(_lines([log], ended=job.ended))
        if job.ended:
            return job
        time.sleep(1)


def status(job_id: str, address: str | None = None) -> Job:
    """Return what the cluster knows of a job.

    Raises:
        UserError: there is no such job, or no such cluster.
    """
    return _job(_client(address), job_id)


def stop(job_id: str, address: str | None = None) -> Job:
    """Stop a job and wait until it has ended; one that has ended already stays as it is.

    Raises:
        UserError: there is no such job, or no such cluster.
    """
    client = _client(address)
    if not (job := _job(client, job_id)).ended:
        with _plainly(client.get_address(), job_id):
            client.stop_job(job_id)
        deadline = time.monotonic() + STOP_SECONDS
        while not (job := _job(client, job_id)).ended and time.monotonic() < deadline:
            time.sleep(0.5)
    return job


def api_address(address: str | None = None) -> str:
    """Return where a cluster takes jobs: as given, or from the environment, or on this machine.

    Of the environment, RAY_API_SERVER_ADDRESS comes before RAY_ADDRESS, which counts where it is
    of HTTP.

    Raises:
        UserError: it is no address of HTTP.
    """
    if address is None:
        variables = (os.environ.get(n, "") for n in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
        address = next((v for v in variables if v.startswith("http")), DEFAULT_ADDRESS)
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number
        good = False
    if not good:
        raise UserError(
            f"address {without_password(address)!r}: expected that of the cluster's dashboard, "
            f"such as {DEFAULT_ADDRESS}"
        )
    return address.rstrip("/")


def without_password(address: str) -> str:
    """Return an address as it may be shown."""
    return re.sub(r"//[^/]*@", "//", address)


def _check(config: Config, in_working_dir: bool) -> None:
    """Refuse what would fail on the cluster, as far as it can be told without the data."""
    # Here, since it loads torch, for which `status` and `stop` need not wait.
    from sase_ray.strategies import make_strategy
    from search_spaces.baselines import baseline_attention

    for name in config.strategies:
        make_strategy(name, config.strategy_options.get(name))
    for name in config.baselines:
        baseline_attention(name)
    if not _for_every_node(config.results):
        raise UserError(
            f"results: {config.results!r} would be a folder of the job, which Ray deletes: name "
            f"one that all nodes share, e.g. --set results=/mnt/shared/results"
        )
    for key, path in (("data.root", config.data.root), ("reliability", config.reliability)):
        if path is not None and not _for_every_node(path) and not in_working_dir:
            raise UserError(
                f"{key}: {path!r} is not sent with the job: name a folder that all nodes share"
            )


def _for_every_node(path: str) -> bool:
    return path.startswith("/") or "://" in path


def _needed_files(config: Path, settings: Config) -> tuple[Path, list[Path]]:
    """Return the folder that becomes the job's, and the files in it: config, space, operations."""
    files = [_absolute(config)]
    if settings.space not in space_names():
        space = SearchSpace.load(settings.space)
        files.append(_absolute(settings.space))
        for operations in space.operation_files:
            files.append(_absolute(operations.path))
            if not files[-1].is_relative_to(files[1].parent):
                raise UserError(
                    f"space file {settings.space}: operations file {operations.path} is not sent "
                    f"with the job: keep it beside the space file, or in a folder below"
                )
    here = Path.cwd()
    base = os.path.commonpath([here, *(file.parent for file in files)])
    return Path(base), files


def _absolute(path: str | Path) -> Path:
    # Links are left alone: the files are to lie in the job's folder as they seem to lie here.
    return Path(os.path.abspath(path))


def _start(
    client: JobSubmissionClient, entrypoint: str, working_dir: str, job_id: str | None
) -> str:
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            with _plainly(client.get_address()):
                return client.submit_job(
                    entrypoint=entrypoint,
                    runtime_env={"working_dir": working_dir},
                    submission_id=job_id,
                )
        except UserError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)


def _job(client: JobSubmissionClient, job_id: str) -> Job:
    if not _is_id(job_id):
        raise _unknown_job(job_id, client.get_address())
    with _plainly(client.get_address(), job_id):
        details = client.get_job_info(job_id)
    seconds = None
    if details.start_time:
        seconds = (details.end_time or time.time() * 1000) / 1000 - details.start_time / 1000
    # Ray goes on with the end of the log, which is not for a line.
    message = (details.message or "").partition(", last available logs")[0]
    return Job(job_id, str(details.status.value), " ".join(message.split()), seconds)


def _is_id(text: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*", text) is not None


def _unknown_job(job_id: str, address: str) -> UserError:
    return UserError(f"no job {job_id!r} on the cluster at {without_password(address)}")


def _tail(client: JobSubmissionClient, job_id: str) -> Iterator[str]:
    """Yield a job's log from its beginning, in pieces, until the job ends or the connection."""
    got: queue.Queue[str | None] = queue.Queue()

    async def tail() -> None:
        async for piece in client.tail_job_logs(job_id):
            got.put(piece)

    def run() -> None:
        # Whatever broke the connection, the job's state tells what to do.
        with suppress(Exception):
            asyncio.run(tail())
        got.put(None)

    # A thread, since a notebook has a running loop of its own.
    threading.Thread(target=run, daemon=True).start()
    return iter(got.get, None)


def _lines(pieces: Iterable[str], ended: bool = False) -> Iterator[str]:
    """Yield the lines of a text in pieces; an unfinished last one only where it stays so."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest and ended:
        yield rest


def _client(address: str | None) -> JobSubmissionClient:
    """Connect to a cluster, or say in a sentence why that cannot be done."""
    address = api_address(address)
    import requests
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk"):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)
    with _plainly(address):
        # Ray's own requests wait as long as the network does.
        requests.head(address, timeout=ANSWER_SECONDS, allow_redirects=False)
        # Ray lets its environment variables win over an address that was given.
        with _environment("RAY_API_SERVER_ADDRESS", address):
            return JobSubmissionClient(address)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _plainly(address: str, job_id: str | None = None) -> Iterator[None]:
    """Turn what Ray raises into one sentence; never with a text that could hold the token."""
    import requests
    from ray.exceptions import AuthenticationError

    where = f"the cluster at {without_password(address)}"
    try:
        yield
    except AuthenticationError as error:
        why = "refuses the token" if "invalid" in str(error) else "needs a token, and none is set"
        raise UserError(f"{where} {why}: {_TOKEN}") from None
    except requests.exceptions.InvalidHeader:
        raise UserError(f"the token for {where} is not one line of text: {_TOKEN}") from None
    except (requests.RequestException, ConnectionError) as error:
        slow = isinstance(error, requests.Timeout)
        why = f"no answer within {ANSWER_SECONDS} s" if slow else "nothing there takes jobs"
        raise UserError(
            f"cannot reach {where}: {why}; --address takes that of the dashboard, such as "
            f"{DEFAULT_ADDRESS}"
        ) from None
    # Ray has no exceptions of its own for what the dashboard answers.
    except (RuntimeError, ValueError) as error:
        if job_id is not None and "status code 404" in str(error):
            raise _unknown_job(job_id, address) from None
        # Of a traceback of the dashboard, the last line with words in it.
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
        last = lines[-1] if lines else type(error).__name__
        raise UserError(f"{where} did not take the request: {last}") from None
