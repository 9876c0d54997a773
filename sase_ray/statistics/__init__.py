"""Tests and variance components."""
