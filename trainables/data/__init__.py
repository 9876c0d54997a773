"""Data sets by name, their splits, and batches on the device."""

# Importing a data set's file enters it into the catalogue, in this order.
from trainables.data import digits, fashion_mnist, cluttered, cifar, imagefolder  # noqa: F401, I001
from trainables.data.augment import Augmentation, Normalisation
from trainables.data.batches import Batches
from trainables.data.dataset import ImageData, LabelledImages, RawData
from trainables.data.registry import Dataset, datasets, load_dataset, register_dataset
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
    "datasets",
    "final_data",
    "load_dataset",
    "make_splits",
    "register_dataset",
    "search_data",
    "shift_data",
]
