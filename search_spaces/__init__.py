"""What can be built: operations, genotypes, spaces, the attention block, backbones.

The plain-Python part (`Genotype`, `SearchSpace`) loads without torch; the rest loads on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from search_spaces.errors import UserError
from search_spaces.genotype import EDGES, PUBLISHED, Genotype
from search_spaces.space import SearchSpace, space_names

if TYPE_CHECKING:
    from search_spaces.block import SASE
    from search_spaces.mixture import Mixture
    from search_spaces.network import NetworkSpec, Supernet
    from search_spaces.ops import register_op
    from search_spaces.super_block import SuperSASE

_TORCH_NAMES = {
    "SASE": "search_spaces.block",
    "SuperSASE": "search_spaces.super_block",
    "Mixture": "search_spaces.super_block",
    "NetworkSpec": "search_spaces.network",
    "Supernet": "search_spaces.network",
    "register_op": "search_spaces.ops",
}

__all__ = [
    "EDGES",
    "PUBLISHED",
    "SASE",
    "Genotype",
    "Mixture",
    "NetworkSpec",
    "SearchSpace",
    "SuperSASE",
    "Supernet",
    "UserError",
    "register_op",
    "space_names",
]


def __getattr__(name: str) -> Any:
    if name in _TORCH_NAMES:
        return getattr(import_module(_TORCH_NAMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
