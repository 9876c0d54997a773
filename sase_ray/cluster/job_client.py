"""A comparison as a job of a Ray cluster that this machine only reaches over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from search_spaces.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ANSWER_SECONDS = 10
"""Time within which a cluster must answer."""
AGENT_SECONDS = 60
"""Time for which a head that has just started may lack an agent to run jobs."""
_AUTHENTICATE = (
    "set RAY_AUTH_MODE=token, and the cluster's token in RAY_AUTH_TOKEN, or in the file that "
    "RAY_AUTH_TOKEN_PATH names or ~/.ray/auth_token"
)


def follow(client: JobSubmissionClient, job_id: str, write: Callable[[str], object]) -> JobDetails:
    """Pass on a job's log from its beginning until the job has ended.

    Args:
        client: Connection to the job's cluster.
        job_id: Id that `start_job` returned.
        write: Called with each new piece of the log.

    Returns:
        The details of the job at its end.

    Raises:
        UserError: The cluster can no longer be reached.
    """
    written = 0

    def write_new(text: str, start: int = 0) -> None:
        nonlocal written
        if start + len(text) > written:
            write(text[written - start :])
            written = start + len(text)

    async def tail() -> None:
        start = 0
        async for piece in client.tail_job_logs(job_id):
            write_new(piece, start)
            start += len(piece)

    while True:
        # The job's state determines what to do, however the connection broke.
        with suppress(Exception):
            asyncio.run(tail())
        with _plainly(client.get_address()):
            details = client.get_job_info(job_id)
            # The part of the log that a broken connection, or a proxy, has held back.
            write_new(client.get_job_logs(job_id))
        if details.status.is_terminal():
            return details
        time.sleep(1)


def api_address(address: str | None = None) -> str:
    """Return where a cluster takes jobs: as given, or from the environment, or on this machine.

    In the environment, RAY_API_SERVER_ADDRESS comes before RAY_ADDRESS, which counts only if it
    is an HTTP address.

    Raises:
        UserError: It is not an HTTP address.
    """
    if address is None:
        variables = (os.environ.get(n, "") for n in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
        address = next((v for v in variables if v.startswith("http")), DEFAULT_ADDRESS)
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # raised for a port that is not a number
        good = False
    if not good:
        raise UserError(
            f"address {without_password(address)!r}: expected that of the cluster's dashboard, "
            f"such as {DEFAULT_ADDRESS}"
        )
    return address.rstrip("/")


def without_password(address: str) -> str:
    """Return an address without its password, so that it may be shown."""
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


def is_job_id(text: str) -> bool:
    """Return whether a text may name a job."""
    return re.fullmatch(r"\w[\w.-]*", text) is not None


def connect(address: str | None) -> JobSubmissionClient:
    """Connect to a cluster, or raise a sentence on why that cannot be done."""
    address = api_address(address)
    _bypass_proxy(address)
    import requests
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk"):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)
    with _plainly(address):
        # Ray's own requests wait as long as the network does.
        requests.head(address, timeout=ANSWER_SECONDS, allow_redirects=False)
        # Ray prefers its environment variables to an address that was given.
        with environment("RAY_API_SERVER_ADDRESS", address):
            return JobSubmissionClient(address)


def _bypass_proxy(address: str) -> None:
    """Let no proxy stand between this process and a cluster on this machine."""
    host = urlsplit(address).hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        for name in ("no_proxy", "NO_PROXY"):
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))


def _proxy_hint(address: str) -> str:
    """Return that requests to an address go through a proxy, and what to do; or an empty text."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(address, get_environ_proxies(address))
    if proxy is None:
        return ""
    return (
        f" through the proxy {without_password(proxy)} (http_proxy); if the cluster is reached "
        f"directly, add {urlsplit(address).hostname} to no_proxy"
    )


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable inside the block."""
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
def _plainly(address: str) -> Iterator[None]:
    """Turn what Ray raises into one sentence that never holds a text with the token."""
    import requests
    from ray.exceptions import AuthenticationError

    where = f"the cluster at {without_password(address)}"
    proxied = _proxy_hint(address)
    try:
        yield
    except AuthenticationError as error:
        why = "refuses the token" if "invalid" in str(error) else "needs a token, and none is set"
        raise UserError(f"{where} {why}: {_AUTHENTICATE}") from None
    except requests.exceptions.InvalidHeader:
        raise UserError(f"the token for {where} is not one line of text: {_AUTHENTICATE}") from None
    except (requests.RequestException, ConnectionError) as error:
        slow = isinstance(error, requests.Timeout)
        why = f"no answer within {ANSWER_SECONDS} s" if slow else "nothing there takes jobs"
        if proxied:
            raise UserError(f"cannot reach {where}{proxied}") from None
        raise UserError(
            f"cannot reach {where}: {why}; --address takes that of the dashboard, such as "
            f"{DEFAULT_ADDRESS}"
        ) from None
    # Ray has no exceptions of its own for the answers of the dashboard.
    except (RuntimeError, ValueError) as error:
        # Keep the last line with words of a traceback from the dashboard.
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
        last = lines[-1] if lines else type(error).__name__
        raise UserError(f"{where} did not take the request: {last}{proxied}") from None
