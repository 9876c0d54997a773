"""Search for the best attention module of a vision network, and compare the strategies honestly."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sase_ray.comparison import Comparison, SearchReport, compare, search
    from sase_ray.config import Config, load_config
    from search_spaces import SASE, Genotype, SearchSpace, UserError, register_op

_PLACES = {
    "SASE": "search_spaces",
    "Genotype": "search_spaces",
    "SearchSpace": "search_spaces",
    "UserError": "search_spaces",
    "register_op": "search_spaces",
    "Comparison": "sase_ray.comparison",
    "SearchReport": "sase_ray.comparison",
    "compare": "sase_ray.comparison",
    "search": "sase_ray.comparison",
    "Config": "sase_ray.config",
    "load_config": "sase_ray.config",
}

__all__ = [
    "SASE",
    "Comparison",
    "Config",
    "Genotype",
    "SearchReport",
    "SearchSpace",
    "UserError",
    "compare",
    "load_config",
    "register_op",
    "search",
]


def __getattr__(name: str) -> Any:
    # On first use, so that `sase-ray --help` does not wait for torch and Ray.
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
