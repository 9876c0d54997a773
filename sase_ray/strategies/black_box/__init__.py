"""Strategies that judge a genotype by training it."""
