"""The Ray cluster: joining or starting one, and how much of it a search may hold."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import ray

from sase_ray.cluster.job_client import environment, without_password
from sase_ray.cluster.slots import Slots, slots_of
from sase_ray.config import ResourcesConfig
from sase_ray.console import make_console, say
from search_spaces.errors import UserError, shorten

WATCH_SECONDS = 2.0
LOST_SECONDS = 10.0
"""Time without an answer after which a head counts as gone."""

MAX_STARTS = 6
"""Number of times that a cluster of our own is started before the machine counts as too busy."""

ANSWER_SECONDS = 5.0
"""Time within which a head must answer."""

LONGEST_REASON = 300
"""Number of characters of Ray's own message that an error quotes."""

LONGEST_SOCKET = 107
"""Number of bytes of the longest path of a Unix socket (unix(7))."""

SHORT_FOLDER = "/tmp"  # noqa: S108 - Ray makes a folder of its own there
_SOCKET = "/ray/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""Connection preface of HTTP/2 with empty settings (RFC 9113, 3.4)."""
_SETTINGS = b"\x04"

QUIET = {
    # Tune would print a table of its own, and warn of snapshots that cost milliseconds here.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextmanager
def connected(
    config: ResourcesConfig,
    on_loss: Callable[[], None] = lambda: None,
    footprints: Callable[[], tuple[int, int]] | None = None,
) -> Iterator[Slots]:
    """Join the cluster (or start a local one) for the duration of a run.

    Args:
        config: Which cluster to use, and what a trial holds.
        on_loss: Called when the cluster's head is gone, before this process ends with exit code 1:
            Ray itself would keep it waiting, and then end it without a message.
        footprints: Returns the bytes of a GPU's memory that a trial takes, and those of a
            supernet; called only if the cluster has GPUs and their shares are not given.

    Raises:
        UserError: There is no cluster at the address, or no node of it can hold one trial.
    """
    already = ray.is_initialized()
    if not already:
        _connect(config.address)
    try:
        with _watched(on_loss):
            yield slots_of(config, footprints)
    finally:
        if not already:
            ray.shutdown()


@contextmanager
def _watched(on_loss: Callable[[], None]) -> Iterator[None]:
    """End this process if the head of the cluster can no longer be reached."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    left = threading.Event()

    def watch() -> None:
        missed = 0
        while not left.wait(WATCH_SECONDS):
            missed = 0 if _reachable(host, port) else missed + 1
            if missed * WATCH_SECONDS >= LOST_SECONDS:
                say(
                    make_console(stderr=True),
                    f"error: the head of the Ray cluster at {host}:{port} is gone",
                )
                on_loss()
                sys.stdout.flush()
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()


def _reachable(host: str, port: str) -> bool:
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=WATCH_SECONDS).close()
    except OSError:
        return False
    return True


def _init(address: str) -> None:
    folder = _short_folder() if address == "local" else None
    with nullcontext() if folder is None else environment("TMPDIR", folder):
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": QUIET},
        )


def _short_folder() -> str | None:
    """Return a temporary folder for a cluster of our own, if that of this process is too deep.

    Raises:
        UserError: RAY_TMPDIR is too deep.
    """
    folder, chosen = tempfile.gettempdir(), os.environ.get("RAY_TMPDIR")
    longest = LONGEST_SOCKET - len(_SOCKET)
    if chosen and len(os.fsencode(chosen)) > longest:
        raise UserError(
            f"RAY_TMPDIR {chosen!r} is too long for the names of sockets in it: choose a folder of "
            f"at most {longest} characters"
        )
    if len(os.fsencode(folder)) <= longest:
        return None
    if not chosen:
        say(
            make_console(stderr=True),
            f"the path of the temporary folder {folder} is too long for Ray's sockets: they are in "
            f"{SHORT_FOLDER} (RAY_TMPDIR names another folder, of at most {longest} characters)",
        )
    return chosen or SHORT_FOLDER


def _connect(address: str | None) -> None:
    os.environ.update(QUIET)
    # A job on a cluster finds the cluster in the environment. Otherwise we start a cluster of our
    # own, rather than join one that somebody else happens to run on this machine.
    source = "address" if address else "RAY_ADDRESS"
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_kind(address, source)
    if ":" in address:
        _check_reachable(address, source)
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        for tries_left in reversed(range(MAX_STARTS)):
            try:
                _init(address)
                break
            except Exception as error:
                # A busy machine may take longer to start a cluster than the 30 s that Ray waits.
                slow = "timed out during startup" in str(error)
                if address != "local" or not slow or not tries_left:
                    raise
                ray.shutdown()
    except UserError:
        raise
    # Ray has no exception of its own for a cluster that does not start.
    except Exception as error:
        raise UserError(f"no Ray cluster at {address!r}: {_first_sentences(error)}") from None
    if threading.current_thread() is threading.main_thread() and callable(on_terminate):
        signal.signal(signal.SIGTERM, on_terminate)  # Ray has installed its own handler


def _first_sentences(error: Exception) -> str:
    """Return the beginning of a message that may have many lines, up to the end of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) <= LONGEST_REASON:
        return text
    whole, end, _ = text[:LONGEST_REASON].rpartition(". ")
    return whole if end else shorten(text, LONGEST_REASON)


def _check_kind(address: str, source: str) -> None:
    scheme, sign, _ = address.partition("://")
    if not sign:
        return
    shown = f"{source} {without_password(address)!r}"
    head = (
        "give host:port of the cluster's head, such as head:6379, or leave it out for this machine"
    )
    if scheme in ("http", "https"):
        raise UserError(
            f"{shown} is that of a dashboard, to which `sase-ray submit` sends jobs: to run from "
            f"here, {head}"
        )
    raise UserError(f"{shown} is of a kind that searches cannot use (Ray Client): {head}")


def _check_reachable(address: str, source: str) -> None:
    # Ray itself tries for up to many minutes before it gives up on an address.
    host, _, port = address.rpartition(":")
    shown = f"no Ray cluster at {source} {address!r}"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as probe:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            # The head speaks gRPC, so it answers the preface of HTTP/2 by its settings.
            probe.settimeout(ANSWER_SECONDS)
            probe.sendall(_PREFACE)
            answer = probe.recv(9)
    except TimeoutError:
        raise UserError(f"{shown}: no answer within {ANSWER_SECONDS:g} s") from None
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"{shown}: {error}") from None
    if answer[3:4] != _SETTINGS:
        raise UserError(
            f"{shown}: what answers there is no Ray head, whose port is 6379 by default"
        )
