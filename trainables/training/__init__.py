"""The training loop and its protocols."""
