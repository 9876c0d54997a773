"""The report of a run: what won, whether that is real, what it cost, and what was found.

`write_report` writes it; the functions of `sase_ray.figures.outcomes`, `block` and `gradcam` draw
single figures, those of `analysis` and `operations` give the numbers behind them.
"""

from sase_ray.report.render import write_report

__all__ = ["write_report"]
