"""Figures of runs, as matplotlib draws them."""
