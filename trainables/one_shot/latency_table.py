"""The latency of each operation on one device: the look-up table of latency-aware searches.

Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture
Search", CVPR 2019, section 3.3: the latency of a network is the sum over its parts, each measured
once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from search_spaces.baselines import baseline_attention
from search_spaces.costs import measure_latency
from search_spaces.errors import UserError, explain_validation_error
from search_spaces.genotype import EDGE_KINDS, Genotype
from search_spaces.mixture import Mixture
from search_spaces.network import NetworkSpec, Supernet
from search_spaces.space import SearchSpace, describe_space
from search_spaces.super_block import SuperSASE
from search_spaces.user_files import read_text
from search_spaces.user_paths import user_path
from trainables.hardware.device import device_name
from trainables.persistence.store import write_whole

MIN_SECONDS = 0.02
"""Time for which each operation is repeated, in s."""

MICROSECOND = 1e-3
"""A microsecond in ms. The log of a latency in microseconds must be positive (FBNet, eq. 2)."""


class LatencyTable(BaseModel):
    """Milliseconds of one inference pass, of the host and of each operation on each edge.

    Neither includes the work that is the same for every genotype (the join, the gating).

    Attributes:
        device: Name of the device of the measurement, and on a CPU the number of threads.
        network: Digest of host, space and batch size.
        batch_size: Images per pass.
        host: Latency of the host without attention, in ms.
        operations: For each variable of the space, operation to ms, summed over all blocks that
            share the choice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    device: str
    network: str
    batch_size: int = Field(ge=1)
    host: float = Field(gt=MICROSECOND)
    operations: dict[str, dict[str, Annotated[float, Field(ge=0)]]]

    @classmethod
    def measure(
        cls,
        spec: NetworkSpec,
        space: SearchSpace,
        device: torch.device,
        *,
        batch_size: int = 32,
        min_seconds: float = MIN_SECONDS,
    ) -> LatencyTable:
        """Measure every operation separately, in each block."""
        shape = (spec.in_channels, *spec.input_size)

        def time(module: torch.nn.Module, shape: tuple[int, int, int], seconds: float) -> float:
            return measure_latency(
                module.to(device), shape, batch_size=batch_size, min_seconds=seconds, device=device
            )

        host = time(spec.build(baseline_attention("none")), shape, 10 * min_seconds)
        known: dict[tuple[str, str, int, tuple[int, int]], float] = {}
        total: dict[str, dict[str, float]] = {
            variable.name: dict.fromkeys(variable.choices, 0.0) for variable in space.variables
        }
        for stage, block in Supernet(spec, space).blocks():
            assert isinstance(block, SuperSASE)
            for variable in space.variables:
                if variable.name != variable.edge and not variable.name.startswith(
                    f"stage{stage}."
                ):
                    continue
                kind = EDGE_KINDS[variable.edge]
                operations = block.edges[variable.edge].children()
                for name, operation in zip(variable.choices, operations, strict=True):
                    key = (kind, name, block.channels, block.size)
                    if key not in known:
                        reads = _shape_read(kind, block.channels, block.size)
                        known[key] = time(operation, reads, min_seconds)
                    total[variable.name][name] += known[key]
        return cls(
            device=device_name(device),
            network=_digest(spec, space, batch_size),
            batch_size=batch_size,
            host=host,
            operations=total,
        )

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table.

        Raises:
            UserError: The file does not exist, or is not such a table.
        """
        try:
            return cls.model_validate_json(read_text(user_path(path), "latency table"))
        except ValidationError as error:
            raise explain_validation_error(error, cls, f"latency table {path}") from None

    def save(self, path: str | Path, *, keep: bool = False) -> None:
        """Write the table as JSON, atomically; with `keep`, do not replace an existing file."""
        path = user_path(path)
        if keep and path.exists():
            return
        text = self.model_dump_json(indent=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"latency table {path} cannot be written: {reason}") from None
        write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))

    def check(self, spec: NetworkSpec, space: SearchSpace, device: torch.device) -> None:
        """Check that the table is of this network on this device.

        Raises:
            UserError: The table is of another network or device.
        """
        if self.device != device_name(device):
            raise UserError(
                f"the latency table was measured on {self.device!r}, and the search runs on "
                f"{device_name(device)!r}: measure one there (sase-ray latency)"
            )
        self.check_network(spec, space)

    def check_network(self, spec: NetworkSpec, space: SearchSpace) -> None:
        """Check that the table is of this network, on any device.

        Raises:
            UserError: The table is of another network.
        """
        names = {variable.name: set(variable.choices) for variable in space.variables}
        known = {name: set(row) for name, row in self.operations.items()}
        if self.network != _digest(spec, space, self.batch_size) or known != names:
            raise UserError("the latency table is of another network or space: measure a new one")

    def of(self, genotype: Genotype, space: SearchSpace) -> float:
        """Return the latency of a genotype's network, in ms."""
        config = space.to_config(genotype)
        return self.host + sum(self.operations[name][op] for name, op in config.items())

    def expected(self, mixture: Mixture, space: SearchSpace) -> Tensor:
        """Return the latency of a mixture in ms, with a weighted sum for each edge (FBNet, eq. 9).

        With probabilities as weights it is the expectation over genotypes whose edges are drawn
        independently. It is differentiable with respect to the weights.
        """
        latency = torch.tensor(self.host)
        for variable, weights in zip(space.variables, mixture.edges, strict=True):
            costs = [self.operations[variable.name][op] for op in variable.choices]
            if isinstance(weights, Mapping):
                for index, weight in weights.items():
                    latency = latency + weight * costs[index]
            else:
                latency = latency + weights @ weights.new_tensor(costs)
        return latency


def cached_latency_table(
    spec: NetworkSpec, space: SearchSpace, device: torch.device
) -> LatencyTable:
    """Return the table of this network on this device, and measure it at the first call.

    It is stored in `$SASE_CACHE`, by default `~/.cache/sase-ray`, so that later searches, and a
    search that is resumed, read the same numbers.
    """
    path = cache_path(spec, space, device)
    if path.exists():
        table = LatencyTable.load(path)
        table.check(spec, space, device)
        return table
    # Processes that measure at the same time all use the table that was written first.
    LatencyTable.measure(spec, space, device).save(path, keep=True)
    return LatencyTable.load(path)


def cache_path(spec: NetworkSpec, space: SearchSpace, device: torch.device) -> Path:
    """Return the path of the table of this network on this device."""
    folder = user_path(os.environ.get("SASE_CACHE") or "~/.cache/sase-ray")
    name = hashlib.sha256((device_name(device) + _digest(spec, space, 32)).encode()).hexdigest()
    return folder / "latency" / f"{name[:16]}.json"


def _digest(spec: NetworkSpec, space: SearchSpace, batch_size: int) -> str:
    described = {
        "network": [
            spec.backbone, spec.num_classes, spec.in_channels, spec.input_size, dict(spec.options),
        ],
        "space": describe_space(space),
        "batch_size": batch_size,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _shape_read(kind: str, channels: int, size: tuple[int, int]) -> tuple[int, int, int]:
    """Return the input shape of an operation of this kind, without the batch."""
    if kind == "channel_excite":
        return channels, 1, 1
    return (1, *size) if kind == "spatial_excite" else (channels, *size)
