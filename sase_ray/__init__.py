"""Search for the best attention module of a vision network, and compare the strategies honestly."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sase_ray.commands.compare import Comparison, compare
    from sase_ray.commands.compare_on_table import TableComparison, compare_on_table
    from sase_ray.commands.reliability import ReliabilityReport, measure_reliability
    from sase_ray.commands.search import SearchReport, search
    from sase_ray.commands.tabulate import tabulate
    from sase_ray.config import Config, load_config
    from sase_ray.results.load import Run, load_run
    from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
    from search_spaces import SASE, Genotype, SearchSpace, UserError, register_op

_PLACES = {
    "SASE": "search_spaces",
    "Genotype": "search_spaces",
    "SearchSpace": "search_spaces",
    "UserError": "search_spaces",
    "register_op": "search_spaces",
    "Comparison": "sase_ray.commands.compare",
    "SearchReport": "sase_ray.commands.search",
    "compare": "sase_ray.commands.compare",
    "search": "sase_ray.commands.search",
    "Config": "sase_ray.config",
    "load_config": "sase_ray.config",
    "ReliabilityReport": "sase_ray.commands.reliability",
    "measure_reliability": "sase_ray.commands.reliability",
    "Run": "sase_ray.results.load",
    "load_run": "sase_ray.results.load",
    "TableComparison": "sase_ray.commands.compare_on_table",
    "compare_on_table": "sase_ray.commands.compare_on_table",
    "TabularBenchmark": "sase_ray.tabular_benchmark.benchmark",
    "tabulate": "sase_ray.commands.tabulate",
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
