"""The tables of a run, written and read."""
