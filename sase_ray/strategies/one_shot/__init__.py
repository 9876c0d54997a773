"""Strategies that search within one supernet."""
