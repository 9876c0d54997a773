"""Operations, genotypes, search spaces, the attention block and backbones: what can be built.

The plain-Python part (`Genotype`, `SearchSpace`) loads without torch; the rest loads on first use.
"""

from typing import TYPE_CHECKING

from search_spaces.errors import UserError
from search_spaces.genotype import EDGES, PUBLISHED, Genotype
from search_spaces.lazy import lazy_attributes
from search_spaces.space import SearchSpace, space_names

if TYPE_CHECKING:
    from search_spaces.block import SASE
    from search_spaces.mixture import Mixture
    from search_spaces.network import NetworkSpec, Supernet
    from search_spaces.ops import register_op
    from search_spaces.ops.kernels.mode import fused
    from search_spaces.super_block import SuperSASE

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
    "fused",
    "register_op",
    "space_names",
]

__getattr__ = lazy_attributes(__name__, __file__)
