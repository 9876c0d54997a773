"""The training loop's batches compared with torch's DataLoader, at the size of Fashion-MNIST."""

from __future__ import annotations

import torch
from harness import Row, in_turn, prepare
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from search_spaces.network import NetworkSpec
from trainables.data.augment import Augmentation, Normalisation
from trainables.data.batches import Batches
from trainables.data.dataset import LabelledImages
from trainables.training.loop import Trainer, train_epoch
from trainables.training.protocol import TrainingProtocol

IMAGES, BATCH, WORKERS = 4096, 64, 2


class Images(Dataset[tuple[torch.Tensor, int]]):
    """The usual data set: one image at a time through torchvision's transforms."""

    def __init__(self, part: LabelledImages) -> None:
        self.part = part
        self.transform = v2.Compose(
            [
                v2.RandomCrop(28, padding=2),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.286], [0.353]),
            ]
        )

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.part.images[index]), int(self.part.labels[index])


def rows() -> list[Row]:
    device = prepare()
    part = LabelledImages(
        torch.randint(0, 256, (IMAGES, 1, 28, 28), dtype=torch.uint8),
        torch.randint(0, 10, (IMAGES,)),
    )
    ours = Batches(
        part.to(device),
        BATCH,
        Normalisation((0.286,), (0.353,)),
        shuffle=True,
        drop_last=True,
        augmentation=Augmentation(padding=2, flip=True),
    )
    theirs = DataLoader(
        Images(part),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    spec = NetworkSpec("resnet8", 10, 1, (28, 28), {"width": 8, "stem_stride": 2})
    trainers = {}
    for name in ("ours", "theirs"):
        network = spec.with_genotype("gap_gmp-fc-affine-pnorm-gap-conv3x3_x2").to(device)
        trainers[name] = Trainer(
            network, network.parameters(), TrainingProtocol(batch_size=BATCH), 10_000, device
        )

    def run_theirs() -> None:
        train_epoch(trainers["theirs"], ((x.to(device), y.to(device)) for x, y in theirs))

    seconds = in_turn(
        {"ours": lambda: train_epoch(trainers["ours"], ours), "DataLoader": run_theirs},
        device,
        repeats=5,
        warmup=1,
    )
    speed = {name: IMAGES / value for name, value in seconds.items()}
    return [
        Row(
            "samples a second of the training loop",
            f"DataLoader with {WORKERS} workers",
            speed["ours"] / speed["DataLoader"],
            1.5,
            "at least",
            ", ".join(f"{name} {value:,.0f}/s" for name, value in speed.items()),
        )
    ]
