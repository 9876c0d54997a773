"""TODO."""

from __future__ import annotations

PROGRESS_SECONDS = 5.0
"""How often TensorBoard is told how far the run is."""
