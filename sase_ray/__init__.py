"""Search for the best attention module of a vision network, and compare the strategies honestly."""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_attributes
from search_spaces.user_paths import stand_in_for_account

if TYPE_CHECKING:
    from sase_ray.commands.adapt import Adapted, adapt
    from sase_ray.commands.compare import Comparison, compare
    from sase_ray.commands.compare_on_table import TableComparison, compare_on_table
    from sase_ray.commands.reliability import ReliabilityReport, measure_reliability
    from sase_ray.commands.search import SearchReport, search
    from sase_ray.commands.tabulate import tabulate
    from sase_ray.config import Config, load_config
    from sase_ray.results.load import Run, load_run
    from sase_ray.tabular_benchmark.benchmark import TabularBenchmark
    from search_spaces import SASE, Genotype, SearchSpace, UserError, fused, register_op

__all__ = [
    "SASE",
    "Adapted",
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
    "adapt",
    "compare",
    "compare_on_table",
    "fused",
    "load_config",
    "load_run",
    "measure_reliability",
    "register_op",
    "search",
    "tabulate",
]

stand_in_for_account()

__getattr__ = lazy_attributes(__name__, __file__)
