"""The operations of the block, one file a set, in one catalogue."""

from search_spaces.ops import channel_excite, channel_squeeze, spatial_excite, spatial_squeeze
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
    "channel_excite",
    "channel_squeeze",
    "load_operations",
    "operations",
    "register_op",
    "spatial_excite",
    "spatial_squeeze",
]
