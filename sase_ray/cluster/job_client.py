"""A comparison as a job of a Ray cluster that this machine only reaches over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from search_spaces.errors import UserError

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


def follow(job_id: str, address: str | None = None, write: Callable[[str], object] = print) -> Job:
    """Hand a job's log on, line by line from its beginning, until the job has ended.

    Args:
        job_id: what `submit` returned.
        address: see `api_address`.
        write: called with each line, without its end.

    Raises:
        UserError: there is no such job, or the cluster cannot be reached any more.
    """
    client = connect(address)
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
    return _job(connect(address), job_id)


def stop(job_id: str, address: str | None = None) -> Job:
    """Stop a job and wait until it has ended; one that has ended already stays as it is.

    Raises:
        UserError: there is no such job, or no such cluster.
    """
    client = connect(address)
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


def start_job(
    client: JobSubmissionClient, entrypoint: str, working_dir: str, job_id: str | None
) -> str:
    """Start a job on a cluster and return its id."""
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
    if not is_job_id(job_id):
        raise _unknown_job(job_id, client.get_address())
    with _plainly(client.get_address(), job_id):
        details = client.get_job_info(job_id)
    seconds = None
    if details.start_time:
        seconds = (details.end_time or time.time() * 1000) / 1000 - details.start_time / 1000
    # Ray goes on with the end of the log, which is not for a line.
    message = (details.message or "").partition(", last available logs")[0]
    return Job(job_id, str(details.status.value), " ".join(message.split()), seconds)


def is_job_id(text: str) -> bool:
    """Return whether a text may name a job."""
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


def connect(address: str | None) -> JobSubmissionClient:
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
