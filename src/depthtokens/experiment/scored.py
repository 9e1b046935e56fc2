"""The data that a model is scored on, as one names it: a data set's images, or a store of their features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..data import open_dataset
from ..data.dataset import DepthDataset
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol
from ..features.store import FeatureStore
from .evaluate import Progress, cached_source, source_for
from .source import Source


@dataclass(frozen=True)
class ScoredData:
    """What a model is scored on, and how that is read.

    name: nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER, which stands for the data set that it was made from.
    depth_scale, depth_range (metres): of a folder; where None, what the store or training was told about it. cache: keep the images'
    patch features in the cache folder; told: called with a line before they are written there. Others as for `evaluate`.
    """

    model: DepthTokens
    name: str
    protocol: Protocol
    depth_scale: float | None = None
    depth_range: tuple[float, float] | None = None
    cache: bool = True
    told: Callable[[str], None] | None = None
    batch_size: int = 4
    workers: int = 2
    precision: str = "float32"

    @cached_property
    def store(self) -> FeatureStore | None:
        """The store, where one was named. Raises DataError for one that is none, or damaged."""
        return FeatureStore(self.name.removeprefix("store:")) if self.name.startswith("store:") else None

    def split(self, name: str, list_file: str | None = None) -> DepthDataset:
        """A split of the data set, as images. Raises as `open_dataset`."""
        spec = self.store.data if self.store else self.name
        told: dict[str, Any] = {"depth_scale": self.depth_scale, "depth_range": self.depth_range}
        if spec.startswith("folder:"):
            known = self.store.meta["data"] if self.store else self.model.provenance.get("training", {}).get("experiment", {})
            told = {key: value or known.get(key) for key, value in told.items()}
        return open_dataset(spec, name, list_file=list_file, **told)

    def source(
        self,
        data: DepthDataset | FeatureStore,
        *,
        protocol: Protocol | None = None,
        list_file: str | None = None,
        progress: Progress | None = None,
    ) -> Source:
        """A split, or a store, as patch features, by the views of another protocol if one is given.

        Raises as `source_for` and `cached`, and DataError for a store whose data has changed.
        """
        read: dict[str, Any] = {"batch_size": self.batch_size, "workers": self.workers, "precision": self.precision}
        if isinstance(data, FeatureStore):
            data.check_data()
        if isinstance(data, FeatureStore) or not self.cache:
            return source_for(self.model, data, **read)
        shown = protocol or self.protocol
        return cached_source(self.model, data, shown, list_file=list_file, told=self.told, progress=progress, **read)
