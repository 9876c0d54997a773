"""A network of one's own as a host, as `file:PATH`: a pickled module with its weights.

`sase_ray.adapt` writes such files. Attention is put at the end of each residual branch, see
`residual_places`, and in addition to any attention that the network has. Unpickling runs code, so
the file must have the digest that the configuration names.
"""

from __future__ import annotations

import hashlib
import pickle
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.backbones.attention import AttentionFactory, make_attention
from search_spaces.backbones.registry import OWN_PREFIX, Backbone
from search_spaces.backbones.residual_places import insert_after, residual_places
from search_spaces.errors import UserError, shorten
from search_spaces.user_paths import user_path


def own_backbone(path: str) -> Backbone:
    """Make the catalogue entry of a network in a file; it counts as one stage."""
    return Backbone(
        name=f"{OWN_PREFIX}{path}",
        builder=partial(_build, path),
        stages=1,
        summary=f"the network in {path}; option sha256: digest of the file",
        source="a network of yours",
    )


def _build(
    path: str,
    *,
    num_classes: int,
    in_channels: int,
    input_size: tuple[int, int],
    attention: AttentionFactory,
    sha256: str = "",
) -> nn.Module:
    """Load the network, with a new classifier where the number of classes is another one.

    Raises:
        UserError: There is no such file, it has another digest, or the network does not fit.
    """
    return fit_network(
        _load(path, sha256), num_classes, (in_channels, *input_size), attention, shorten(path)
    )


def _load(path: str, sha256: str) -> nn.Module:
    try:
        content = user_path(path).read_bytes()
    except OSError as error:
        raise UserError(f"network {shorten(path)} cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(
            f"network {shorten(path)} is not the file with the digest in backbone.options.sha256: "
            f"a pickled network runs code when it is loaded, so only that file is"
        )
    try:
        network = pickle.loads(content)  # noqa: S301 - its digest is that of the configuration
    except Exception as error:  # whatever the code of its classes raises
        raise UserError(f"network {shorten(path)} cannot be loaded: {error}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"network {shorten(path)} is a {type(network).__name__}, no module")
    return network


def fit_network(
    network: nn.Module,
    num_classes: int,
    shape: tuple[int, int, int],
    attention: AttentionFactory,
    what: str = "network",
) -> nn.Module:
    """Fit a network to its classes, and put attention at the end of each residual branch.

    Args:
        network: Network from images to logits, with a linear layer as its classifier; it is
            changed, and put into training mode with all parameters trainable.
        num_classes: Number of classes; if it is another one, the classifier is a new layer.
        shape: Channels, height and width of the images.
        attention: Factory of the attention modules; stage is always 0.
        what: Description of the network, with which errors begin.

    Raises:
        UserError: The network does not take the images, gives no logits, or has no residual
            branch.
    """
    with torch.device("cpu"):  # also where the memory of networks on "meta" is estimated
        if check_network(network, shape, what).shape[1] != num_classes:
            path, old = last_linear(network, what)
            new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
            network.set_submodule(path, new)
            if check_network(network, shape, what).shape[1] != num_classes:
                raise UserError(f"the last linear layer of {what}, {path}, is not its classifier")
        places = residual_places(network, torch.zeros(1, *shape))
    if not places:
        raise UserError(
            f"{what} has no place for attention: none of its residual branches ends with a module "
            f"(two feature maps of one shape are added nowhere, of which one has passed more "
            f"convolutions)"
        )
    for place in places:
        module = make_attention(attention, place.channels, place.size, 0)
        insert_after(network, place.path, module)
    return network.to(torch.get_default_device()).train().requires_grad_(True)


def check_network(network: nn.Module, shape: tuple[int, int, int], what: str = "network") -> Tensor:
    """Return the logits (1, classes) of an image of zeros.

    Raises:
        UserError: The network does not take images of this shape, or gives something else.
    """
    channels, height, width = shape
    images = f"images of {channels} channel(s) and {height}x{width} pixels"
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        raise UserError(
            f"{what} takes images of {first.in_channels} channel(s), and these have {channels}: "
            f"set data.channels to {first.in_channels}, or give other images"
        )
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits: Any = network(torch.zeros(1, *shape))
    except Exception as error:  # whatever the network raises for such images
        raise UserError(f"{what} cannot take {images}: {shorten(str(error))}") from error
    finally:
        network.train(was_training)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 1:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"{what} gives {given} for one image, expected logits (1, classes)")
    return logits


def last_linear(network: nn.Module, what: str = "network") -> tuple[str, nn.Linear]:
    """Return the path of a network's last linear layer, which is its classifier, and the layer.

    Raises:
        UserError: There is none.
    """
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise UserError(f"{what} has no linear layer as its classifier")
    return layers[-1]
