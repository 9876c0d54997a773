"""Heat maps of where in an image a trained network finds the class.

Paper: Selvaraju et al., Grad-CAM, ICCV 2017, https://arxiv.org/abs/1610.02391; computed by the
package grad-cam.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from search_spaces.errors import UserError
from trainables.data import Batches, FinalData
from trainables.data.splits import stratified_order
from trainables.persistence.store import Store

FILE = "gradcam.parquet"
"""File that a final training stores next to its result, if heat maps were requested."""


def chosen_images(labels: Tensor, count: int, seed: int) -> tuple[int, ...]:
    """Choose images by a seed, from as many classes as possible.

    Args:
        labels: Classes, int64 (N,).
        count: Number of images; all if there are fewer.
        seed: Seed of the choice.

    Returns:
        Indices, by label and then by index.
    """
    labels = labels.cpu()
    order = stratified_order(labels, seed)
    turns = torch.empty_like(order)
    for label in labels.unique():
        of_class = labels[order] == label
        turns[of_class] = torch.arange(int(of_class.sum()))
    chosen = order[turns.argsort(stable=True)][:count].tolist()
    return tuple(sorted(chosen, key=lambda index: (int(labels[index]), index)))


def class_activations(
    model: nn.Module, data: FinalData, images: Sequence[int], device: torch.device
) -> pd.DataFrame:
    """Return the Grad-CAM of test images for their own class, at the network's last feature map.

    Args:
        model: Trained network, on the device; its gradients are lost.
        data: Data with the test images.
        images: Indices of test images.
        device: Device of the model.

    Returns:
        One row per image: `image` (index in the test part), `label`, `predicted`, `height`,
        `width`, `channels`, `pixels` (uint8, height x width x channels, row by row, as bytes) and
        `cam` (uint8, height x width, row by row, as bytes; the package scales every map to 0 to
        255).

    Raises:
        UserError: The network has no feature map of more than one position.
    """
    from pytorch_grad_cam import GradCAM  # takes seconds, and few trainings need it
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    part = data.test.select(torch.tensor(images)).to(device)
    (batch, _), *_ = Batches(part, len(images), data.normalisation)
    model.eval().requires_grad_(True)  # a frozen host too
    layer = last_map(model, batch[:1])
    targets = [ClassifierOutputTarget(label) for label in part.labels.tolist()]
    explainer = GradCAM(model, [layer])
    maps = explainer(input_tensor=batch, targets=targets)
    predicted = explainer.outputs.argmax(1).tolist()
    levels = (255 * maps).round().clip(0, 255).astype("uint8")
    pixels = part.images.permute(0, 2, 3, 1).cpu().numpy()
    return pd.DataFrame(
        {
            "image": list(images),
            "label": part.labels.tolist(),
            "predicted": predicted,
            "height": pixels.shape[1],
            "width": pixels.shape[2],
            "channels": pixels.shape[3],
            "pixels": [image.tobytes() for image in pixels],
            "cam": [level.tobytes() for level in levels],
        }
    )


@torch.no_grad()
def last_map(model: nn.Module, images: Tensor) -> nn.Module:
    """Return the module that outputs the last feature map of more than one position.

    It is the last stage of a host that pools it. Of modules that contain each other, it is the
    outermost.

    Args:
        model: Network from images (B, C, H, W) to logits.
        images: Example images, (B, C, H, W).

    Raises:
        UserError: There is no such map.
    """
    found: list[nn.Module] = []

    def record(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1:
            found.append(module)

    hooks = [module.register_forward_hook(record) for module in model.modules()]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError("the network has no feature map of more than one position")
    return found[-1]


def write_activations(store: Store, activations: pd.DataFrame) -> None:
    """Store a result of `class_activations`.

    Raises:
        StorageError: The result cannot be written.
    """
    content = io.BytesIO()
    activations.to_parquet(content, index=False)
    store.write(FILE, content.getvalue())


def read_activations(store: Store) -> pd.DataFrame | None:
    """Return the stored result of `class_activations`, or None.

    Raises:
        StorageError: The result cannot be read.
    """
    content = store.read(FILE)
    return None if content is None else pd.read_parquet(io.BytesIO(content))
