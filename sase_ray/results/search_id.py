"""The name of a search: its strategy, its seed, and the strategy that it starts from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class SearchId:
    """Identity of a search in a run. Its text form is ``<label>/seed<seed>``.

    Attributes:
        strategy: Name of the strategy in the catalogue.
        seed: Seed of the search.
        starts_from: Strategy whose findings it starts from; None if it starts from nothing.
    """

    strategy: str
    seed: int
    starts_from: str | None = None

    @classmethod
    def of(cls, label: str, seed: int) -> SearchId:
        """Return the search with a seed and a label as tables and configurations hold it."""
        strategy, starts_from = split_label(label)
        return cls(strategy, seed, starts_from)

    @property
    def label(self) -> str:
        """The strategy as tables and figures name it, ``X+Y`` with a warm start."""
        return label_of(self.strategy, self.starts_from)

    @property
    def file_name(self) -> str:
        """The text form without path separators."""
        return str(self).replace("/", "-")

    def __str__(self) -> str:
        return f"{self.label}/seed{self.seed}"


def label_of(strategy: str, starts_from: str | None) -> str:
    """Return the label of a strategy, ``X+Y`` if it starts from the findings of another."""
    return strategy if starts_from is None else f"{strategy}+{starts_from}"


def split_label(label: str) -> tuple[str, str | None]:
    """Return the strategy of a label, and the one that it starts from, if any."""
    strategy, plus, starts_from = label.partition("+")
    return strategy, starts_from if plus else None
