"""Where images and depths come from: data sets by name, and what all of them share. Importing this room loads no torch."""

from __future__ import annotations

from .registry import READERS, dataset_class, open_dataset, states_units

__all__ = ["READERS", "dataset_class", "open_dataset", "states_units"]
