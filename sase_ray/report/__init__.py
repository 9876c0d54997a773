"""Report of a run: what won, whether that is more than chance, what it cost, and what was found.

`write_report` writes it; the functions of `sase_ray.figures` draw single figures, and those of
`sase_ray.analysis` compute the numbers behind them.
"""

from sase_ray.report.render import write_report

__all__ = ["write_report"]
