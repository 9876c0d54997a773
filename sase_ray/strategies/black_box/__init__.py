"""Strategies that score a genotype by training it."""
