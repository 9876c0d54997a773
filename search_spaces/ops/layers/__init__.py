"""Layers that operations are made of."""
