"""Observers of a run: the terminal and TensorBoard."""
