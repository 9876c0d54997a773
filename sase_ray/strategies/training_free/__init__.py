"""Strategies that judge a genotype without training it."""
