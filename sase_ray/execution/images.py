"""The images of a problem: loaded, fitted, split and normalised as its configuration says."""

from __future__ import annotations

from dataclasses import replace

from sase_ray.config import Config
from search_spaces.errors import UserError
from trainables.data import (
    ImageData,
    Normalisation,
    SearchData,
    Splits,
    load_dataset,
    make_splits,
    search_data,
)
from trainables.data.duplicates import duplicate_notes
from trainables.data.fit import fit_data
from trainables.image_settings import ImageSettings


def split_images(dataset: str, settings: ImageSettings) -> tuple[ImageData, Splits]:
    """Load a data set in the size and colours of its settings, and split it.

    Raises:
        UserError: There is no such data set, or it does not have what is asked for.
    """
    data = load_dataset(dataset, settings.root, **settings.options)
    sizes = settings.train_size, settings.validation_size
    splits = make_splits(data, settings.split_seed, *sizes)
    data = replace(data, notes=data.notes + duplicate_notes(data, splits))
    return fit_data(data, settings.channels, settings.image_size), splits


def expected_normalisation(config: Config, channels: int) -> Normalisation | None:
    """Return the normalisation that the configuration states, or None.

    Raises:
        UserError: It is for images with another number of channels.
    """
    given = config.data.normalisation
    if given is None:
        return None
    if len(given.mean) != channels:
        raise UserError(
            f"data.normalisation has {len(given.mean)} channel(s), the images have {channels}"
        )
    return Normalisation(given.mean, given.std)


def source_images(
    config: Config, normalisation: Normalisation | None
) -> tuple[SearchData | None, tuple[str, ...]]:
    """Return the images that the host is trained on and their notes; None if they are the run's.

    Raises:
        UserError: As for `split_images`, or the set has no classes.
    """
    if config.host is None or config.host.source is None:
        return None, ()
    config.make_task().check_dataset(config.host.source.dataset)
    data, splits = split_images(config.host.source.dataset, config.host.source)
    return search_data(data, splits, normalisation), tuple(f"host.source: {n}" for n in data.notes)
