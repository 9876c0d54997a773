"""How long tests wait for other processes: limits that no busy machine misses."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 900.0
"""Seconds to wait for an event of a real process. What is right takes a hundredth of it."""


def wait_until(condition: Callable[[], bool], check: Callable[[], None] = lambda: None) -> None:
    """Wait for an event.

    Args:
        condition: Returns whether the event has happened.
        check: Raises an error if the event cannot happen any more.

    Raises:
        TimeoutError: It has not happened within `PATIENCE`.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened within {PATIENCE:.0f} s")
        time.sleep(0.05)
