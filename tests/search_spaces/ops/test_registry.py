"""The catalogue of operations, and entering one's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from search_spaces.errors import UserError
from search_spaces.genotype import EDGE_KINDS
from search_spaces.ops import Operation, build_op, load_operations, operations, register_op
from search_spaces.space import OperationFile, SearchSpace, space_names


@pytest.mark.parametrize("space", space_names())
def test_every_name_of_a_bundled_space_builds(space: str) -> None:
    loaded = SearchSpace.load(space)
    load_operations(loaded)
    for variable in loaded.variables:
        for name in variable.choices:
            op = build_op(EDGE_KINDS[variable.edge], name, 4, (3, 3))
            assert isinstance(op, nn.Module)


def test_the_catalogue_has_the_published_space_and_the_comparison_form() -> None:
    space = SearchSpace.load("sase")
    published = {(EDGE_KINDS[v.edge], name) for v in space.variables for name in v.choices}
    entered = {(op.kind, op.name) for op in operations()}
    assert len(published) == 28
    assert published | {("channel_squeeze", "l2norm_in")} <= entered


@pytest.mark.parametrize("op", operations(), ids=lambda op: f"{op.kind}-{op.name}")
def test_every_operation_says_what_it_is_and_where_it_comes_from(op: Operation) -> None:
    assert op.summary
    assert op.source


def test_register_a_function() -> None:
    @register_op("channel_squeeze", "median", source="mine")
    def median(x: Tensor) -> Tensor:
        """The median."""
        return x.flatten(2).median(2).values[:, :, None, None]

    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert build_op("channel_squeeze", "median", 1, (3, 5))(x).item() == 7
    entry = operations("channel_squeeze")[-1]
    assert (entry.name, entry.summary, entry.source) == ("median", "The median.", "mine")


def test_register_a_class() -> None:
    @register_op("spatial_excite", "shift")
    class Shift(nn.Module):
        def __init__(
            self,
            channels: int,
            size: tuple[int, int],
            *,
            affine: bool = True,
            device: torch.device | str | None = None,
            dtype: torch.dtype | None = None,
        ) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.full(size, channels, device=device, dtype=dtype))

        def forward(self, s: Tensor) -> Tensor:
            return s + self.shift

    op = build_op("spatial_excite", "shift", 3, (2, 4), dtype=torch.float64)
    y = op(torch.ones(1, 1, 2, 4))
    assert y.dtype == torch.float64
    assert torch.equal(y, torch.full((1, 1, 2, 4), 4.0, dtype=torch.float64))


def test_a_name_is_taken_once() -> None:
    with pytest.raises(UserError, match="kind 'channel_squeeze' 'gap' is already registered"):

        @register_op("channel_squeeze", "gap")
        def another(x: Tensor) -> Tensor:
            return x


def test_same_name_may_serve_another_kind() -> None:
    @register_op("channel_excite", "gap")
    def identity(z: Tensor) -> Tensor:
        return z

    assert "gap" in [op.name for op in operations("channel_excite")]


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'gap_gpm': did you mean 'gap_gmp'\?.*allowed are gap"):
        build_op("channel_squeeze", "gap_gpm", 4, (3, 3))
    with pytest.raises(UserError, match="did you mean 'channel_squeeze'"):
        register_op("chanel_squeeze", "mine")
    with pytest.raises(UserError, match="'3x3' cannot name an operation"):
        register_op("spatial_excite", "3x3")


def space_with(operation: str, text: str) -> SearchSpace:
    space = SearchSpace.load("sase")
    sets = {**space.sets, "channel_squeeze": ("gap", operation)}
    files = (OperationFile("/nowhere/mine.py", text),)
    return replace(space, name="mine", sets=sets, operation_files=files)


MEDIAN_FILE = """
from search_spaces.ops import register_op

@register_op("channel_squeeze", "file_median", source="mine")
def file_median(x):
    "The median."
    return x.flatten(2).median(2).values[:, :, None, None]
"""


def test_operations_of_a_file_are_loaded_from_its_text() -> None:
    load_operations(space_with("file_median", MEDIAN_FILE))
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert build_op("channel_squeeze", "file_median", 1, (3, 5))(x).item() == 7


def test_a_space_may_not_name_what_no_file_registers() -> None:
    with pytest.raises(UserError, match="in space 'mine' 'gap_sdt': did you mean 'gap_std'"):
        load_operations(space_with("gap_sdt", "# registers nothing"))


def test_a_faulty_file_is_named() -> None:
    with pytest.raises(UserError, match=r"mine\.py: ZeroDivisionError: division by zero"):
        load_operations(space_with("gap_std", "1 / 0"))


def test_a_users_file_cannot_silently_replace_a_published_operation() -> None:
    text = (
        "from search_spaces import register_op\n"
        "@register_op('channel_squeeze', 'gap')\n"
        "def gap(x):\n    return x.amax((2, 3), keepdim=True)\n"
    )
    with pytest.raises(UserError, match="already registered"):
        load_operations(published_with(OperationFile("replacing.py", text)))


@pytest.mark.parametrize(
    "text",
    [
        "raise SystemExit(3)",
        "this is not python",
        "1 / 0",
    ],
)
def test_a_broken_operations_file_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"operations file broken\.py"):
        load_operations(published_with(OperationFile("broken.py", text)))


def test_an_operations_file_may_define_dataclasses() -> None:
    text = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Settings:\n    scale: float = 1.0\n"
    )
    load_operations(published_with(OperationFile("with_dataclass.py", text)))


def published_with(file: OperationFile) -> SearchSpace:
    return replace(SearchSpace.load("sase"), operation_files=(file,))
