"""Layers from which the operations are built."""
