"""Networks with attention: a host with the blocks of one genotype, and the supernet of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.backbones import AttentionFactory, build_backbone, get_backbone
from search_spaces.baselines import BASELINES, baseline_attention
from search_spaces.block import SASE
from search_spaces.errors import UserError
from search_spaces.genotype import Genotype
from search_spaces.mixture import Mixture
from search_spaces.space import SearchSpace
from search_spaces.super_block import SuperSASE


@dataclass(frozen=True)
class NetworkSpec:
    """Specification of a host network and its images: everything except the attention.

    Args:
        backbone: Name of the backbone in the catalogue.
        num_classes: Number of classes.
        in_channels: Number of channels of the images.
        input_size: Size (H, W) of the images.
        options: Options of the backbone, e.g. ``{"width": 16}``.
    """

    backbone: str
    num_classes: int
    in_channels: int
    input_size: tuple[int, int]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, attention: AttentionFactory | None = None, *, seed: int = 0) -> nn.Module:
        """Build the host with attention from a factory.

        The host's initial weights depend only on the seed: each attention module draws its own
        weights from a separate generator. So two genotypes with one seed start from the same host
        (common random numbers), and the state of torch's global generator is not changed.
        """
        blocks = 0

        def isolated(channels: int, size: tuple[int, int], stage: int) -> nn.Module | None:
            nonlocal blocks
            blocks += 1
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed * 10_007 + blocks)
                return attention(channels, size, stage) if attention else None

        # Not `torch.manual_seed`, which also seeds the generators of the GPUs.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return build_backbone(
                self.backbone,
                num_classes=self.num_classes,
                in_channels=self.in_channels,
                input_size=self.input_size,
                attention=isolated,
                **self.options,
            )

    def with_genotype(self, genotype: Genotype | str, *, seed: int = 0) -> nn.Module:
        """Build the network whose blocks are those of a genotype.

        Raises:
            UserError: The genotype and the backbone have different numbers of stages.
        """
        genotype = Genotype.parse(genotype)
        self.check_stages(genotype.stages)
        return self.build(
            lambda channels, size, stage: SASE(channels, genotype.stage(stage), size=size),
            seed=seed,
        )

    def with_baseline(self, name: str, *, seed: int = 0) -> nn.Module:
        """Build the network with a hand-designed module: `none`, `se`, `eca`, `cbam`."""
        return self.build(baseline_attention(name), seed=seed)

    def with_module(self, module: str, seed: int) -> nn.Module:
        """Build the network with a module given as text: a baseline's name, or a genotype."""
        if module in BASELINES:
            return self.with_baseline(module, seed=seed)
        return self.with_genotype(module, seed=seed)

    def check_stages(self, stages: int) -> None:
        """Check that a space or genotype with this number of stages fits the backbone.

        Raises:
            UserError: The number is neither 1 (shared) nor the backbone's number of stages.
        """
        have = get_backbone(self.backbone).stages
        if stages not in (1, have):
            raise UserError(
                f"backbone {self.backbone!r} has {have} stage(s) to choose a block for, "
                f"not {stages}"
            )


class _Current:
    """The mixture of the running forward pass, which the blocks of one supernet read."""

    mixture: Mixture | None = None


class _Slot(nn.Module):
    """Stand-in for a host's attention: the host passes only the feature map."""

    def __init__(self, block: nn.Module, stage: int, current: _Current) -> None:
        super().__init__()
        self.block = block
        self.stage = stage
        self.current = current

    def forward(self, x: Tensor) -> Tensor:
        if self.current.mixture is None:
            raise RuntimeError("a supernet's host is called through the supernet, with a mixture")
        return self.block(x, self.current.mixture.stage(self.stage))


class Supernet(nn.Module):
    """A host network whose attention blocks mix all operations of a space.

    Shape: images (B, C, H, W) and a `Mixture` to logits (B, num_classes).

    Args:
        spec: Host network and its images.
        space: Search space.
        block: Builder of a mixed block from ``(channels, space, size=...)``: `SuperSASE`, or one
            whose operations see only a part of the channels.
        seed: Seed of the initial weights.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        space: SearchSpace,
        *,
        block: Callable[..., nn.Module] = SuperSASE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        spec.check_stages(space.stages)
        self.spec = spec
        self.space = space
        self._current = _Current()
        self.host = spec.build(
            lambda channels, size, stage: _Slot(
                block(channels, space, size=size), stage, self._current
            ),
            seed=seed,
        )

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        """Classify `x` with the given weights of the operations."""
        self._current.mixture = mixture
        try:
            return self.host(x)
        finally:
            self._current.mixture = None

    def blocks(self) -> list[tuple[int, nn.Module]]:
        """Return the mixed blocks in the order of the host, each with the index of its stage."""
        return [(m.stage, m.block) for m in self.host.modules() if isinstance(m, _Slot)]

    def extract(self, genotype: Genotype, *, inherit: bool = True, seed: int = 0) -> nn.Module:
        """Return the discrete network of a genotype.

        Args:
            inherit: Whether host and blocks get the supernet's weights; otherwise fresh ones.
            seed: Seed of the fresh weights.
        """
        self.space.validate(genotype)
        if not inherit:
            return self.spec.with_genotype(genotype, seed=seed)
        blocks = iter([block for _, block in self.blocks()])
        network = self.spec.build(
            lambda channels, size, stage: next(blocks).extract(genotype.stage(stage))  # type: ignore[operator]
        )
        parameter = next(self.parameters())
        network.to(parameter.device, parameter.dtype)
        own = network.state_dict()
        host = {key: value for key, value in self.host.state_dict().items() if key in own}
        network.load_state_dict({**own, **host})
        return network
