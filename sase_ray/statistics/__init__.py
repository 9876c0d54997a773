"""Statistical tests and variance components."""
