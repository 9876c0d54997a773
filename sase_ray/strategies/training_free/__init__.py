"""Strategies that score a genotype without training it."""
