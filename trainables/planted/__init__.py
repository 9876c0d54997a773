"""Planted modules: known genotypes in the run's host, whose outputs all strategies imitate."""
