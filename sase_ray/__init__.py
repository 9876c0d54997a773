"""Search for the best attention module of a vision network, and compare the strategies honestly."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sase_ray.comparison import Comparison, SearchReport, compare, search
    from sase_ray.config import Config, load_config
    from sase_ray.measurement import ReliabilityReport, measure_reliability
    from sase_ray.runs import Run, load_run
    from sase_ray.table_comparison import TableComparison, compare_on_table
    from sase_ray.tabular import TabularBenchmark
    from sase_ray.tabulate import tabulate
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
    "ReliabilityReport": "sase_ray.measurement",
    "measure_reliability": "sase_ray.measurement",
    "Run": "sase_ray.runs",
    "load_run": "sase_ray.runs",
    "TableComparison": "sase_ray.table_comparison",
    "compare_on_table": "sase_ray.table_comparison",
    "TabularBenchmark": "sase_ray.tabular",
    "tabulate": "sase_ray.tabulate",
}

__all__ = [
    "SASE",
    "Comparison",
    "Config",
    "Genotype",
    "ReliabilityReport",
    "Run",
    "SearchReport",
    "SearchSpace",
    "TableComparison",
    "TabularBenchmark",
    "UserError",
    "compare",
    "compare_on_table",
    "load_config",
    "load_run",
    "measure_reliability",
    "register_op",
    "search",
    "tabulate",
]


def __getattr__(name: str) -> Any:
    # On first use, so that `sase-ray --help` does not wait for torch and Ray.
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
