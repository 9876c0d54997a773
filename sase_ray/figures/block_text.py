"""Drawing of the attention block in plain text."""

from __future__ import annotations

from search_spaces.genotype import EDGES, Genotype


def draw(genotype: Genotype, least: int = 0) -> str:
    """Draw the block of a one-block genotype: which operation is on which edge.

    Args:
        genotype: Genotype to draw.
        least: Minimum width of an operation's name, in characters.

    Raises:
        UserError: The genotype has several stages.
    """
    ops = genotype.edges()
    squeeze, c_excite, refine, refined, plain, s_excite = (
        f"[{ops[edge].center(least)}]" for edge in EDGES
    )
    first = f"x ─┬─ {squeeze} ─ z ─┬─ "
    fork = first.index("┬", first.index("┬") + 1)
    top = max(len(c_excite), len(refine))
    gate_c = f"{first}{c_excite.ljust(top, '─')}─ g_c "
    line_m = "   │".ljust(fork) + f"└─ {refine.ljust(top, '─')}─ m"
    column_m = len(line_m) - 1
    times = "   ├".ljust(fork, "─") + "─ × ".ljust(3)
    times = times.ljust(column_m, "─").replace("× ─", "× ◀") + "┘"
    column_u = times.index("×")
    squeezes = max(len(refined), len(plain))
    line_u = "   │".ljust(column_u) + f"└─ u ─ {refined.ljust(squeezes, '─')}─ s_u ─┐"
    join = len(line_u) - 1
    line_s = "   │".ljust(join) + f"├─ join ─ s ─ {s_excite} ─ g_s "
    line_x = "   └".ljust(line_u.index("["), "─")
    line_x = f"{line_x[:-1]} {plain.ljust(squeezes, '─')}─ s_x ─┘"
    end = max(len(gate_c), len(line_s))
    gate_c = gate_c.ljust(end, "─") + "┐"
    line_m = line_m.ljust(end) + "│"
    times = times.ljust(end) + "├─ gate = (g_c + g_s) / 2"
    line_u = line_u.ljust(end) + "│"
    line_s = line_s.ljust(end, "─") + "┘"
    lines = [gate_c, line_m, times, line_u, line_s, line_x]
    return "\n".join([*lines, "", "output = x + x · gate"])
