"""The operations of the block. Every file of this folder that registers one is in the catalogue."""

from search_spaces.ops.registry import (
    Operation,
    build_op,
    load_operations,
    operations,
    register_op,
)

__all__ = [
    "Operation",
    "build_op",
    "load_operations",
    "operations",
    "register_op",
]
