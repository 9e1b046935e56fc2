"""Data by the name that a person gives it: a data set's splits, or a store of their features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data import dataset_class, open_dataset, states_units
from ..data.dataset import DepthDataset
from ..features.store import FeatureStore
from ..files import digest, user_path
from ..schema import read_dataclass
from .config import DataFlags


@dataclass(frozen=True)
class NamedData:
    """Data by the name that a person gives it.

    Attributes:
        name: nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER, which stands for the data set that the store was made from.
        depth_scale: units per metre in the depth files of a folder; None for what the store, or else `trained`, states.
        depth_range: (lo, hi) metres, of a folder; None likewise.
        nyu_depth: which ground truth of NYUv2's labelled .mat, see `open_dataset`.
        trained: what a token file says of its training (`Provenance.training`), for a folder that they were trained on; else empty.
    """

    name: str
    depth_scale: float | None = None
    depth_range: tuple[float, float] | None = None
    nyu_depth: str | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def store(self) -> FeatureStore | None:
        """The store that was named; None where it was a data set. Raises DataError for a damaged store, or one whose data has changed."""
        if not self.name.startswith("store:"):
            return None
        store = FeatureStore(self.name.removeprefix("store:"))
        store.check_data()
        return store

    def split(self, name: str, list_file: str | None = None) -> DepthDataset:
        """A split of the data set, as images.

        Args:
            name: of the split.
            list_file: its list file, where that is not found under ROOT.

        Raises:
            UsageError: for a name that makes no sense.
            DataError: for data that is not there, or cannot be read.
        """
        spec = self.store.data if self.store else self.name
        options: dict[str, Any] = {"depth_scale": self.depth_scale, "depth_range": self.depth_range, "nyu_depth": self.nyu_depth}
        if self.store:  # which ground truth it was made from
            options |= {key: value for key, value in self.store.meta["data"].get("options", {}).items() if options[key] is None}
        if states_units(spec):
            known = self._known(spec)
            options |= {key: known.get(key) for key in ("depth_scale", "depth_range") if options[key] is None}
        return open_dataset(spec, name, list_file=list_file, **options)

    def _known(self, spec: str) -> Mapping[str, Any]:
        """Units told before: to a store, or to the tokens' training, where that was on this data, which does not tell itself."""
        if self.store:
            return self.store.meta["data"]
        experiment = self.trained.get("experiment")
        if not isinstance(experiment, Mapping) or not self._trained_on(spec, str(experiment.get("data", ""))):
            return {}
        name, _, root = spec.partition(":")
        own = dataset_class(name).stated(root)
        told = {key: experiment.get(key) for key in ("depth_scale", "depth_range") if key not in own}
        return asdict(read_dataclass(DataFlags, told, "training"))

    def _trained_on(self, spec: str, data: str) -> bool:
        """Whether a data set is the one that was trained on, which token files call `data`, by its place then."""
        if PLACE not in self.trained:  # as files of earlier versions: by its whole path
            return _place(data) == _place(spec)
        return self.trained[PLACE] == place_sum(spec, str(self.trained.get("data_fingerprint")))


PLACE = "data_place"
"""Under which a token file keeps the `place_sum` of the data that it was trained on."""


def place_sum(spec: str, fingerprint: str) -> str:
    """By what a data set is known again at its place, in a file that does not say where that is.

    Args:
        spec: name and folder of the data set.
        fingerprint: of its training split.
    """
    name, folder = _place(spec)
    return digest([name, str(folder), fingerprint])[:32]


def _place(spec: str) -> tuple[str, Path]:
    """Name and absolute folder of a data set."""
    name, _, root = spec.partition(":")
    return name, user_path(root).absolute()
