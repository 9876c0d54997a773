"""Data sets by name, their splits, and batches on the device.

Every file of this folder that registers a data set is part of the catalogue.
"""

from typing import TYPE_CHECKING

from search_spaces.lazy import lazy_attributes

if TYPE_CHECKING:
    from trainables.data.augment import Augmentation, Normalisation
    from trainables.data.batches import Batches
    from trainables.data.dataset import ImageData, LabelledImages, RawData, TargetImages
    from trainables.data.load import load_dataset
    from trainables.data.registry import Dataset, datasets, register_dataset
    from trainables.data.shift import Shift, shift_data
    from trainables.data.splits import (
        FinalData,
        SearchData,
        Splits,
        final_data,
        make_splits,
        search_data,
    )

__all__ = [
    "Augmentation",
    "Batches",
    "Dataset",
    "FinalData",
    "ImageData",
    "LabelledImages",
    "Normalisation",
    "RawData",
    "SearchData",
    "Shift",
    "Splits",
    "TargetImages",
    "datasets",
    "final_data",
    "load_dataset",
    "make_splits",
    "register_dataset",
    "search_data",
    "shift_data",
]

__getattr__ = lazy_attributes(__name__, __file__)
