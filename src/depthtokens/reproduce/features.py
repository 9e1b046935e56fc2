"""The stored features that a reproduction's rows read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..clip.load import FrozenCLIP
from ..data import open_dataset
from ..data.dataset import DepthDataset
from ..errors import DataError
from ..features.cache import cached
from ..features.views import Views
from ..features.store import FeatureStore
from .settings import Reproduction
from .rows import Row
from ..experiment.source import Stored

Need = tuple[str, str, Views]
"""Role, split and views, see `Reproduction.need`."""


class RowFeatures:
    """Patch features by row and split: from given stores where they fit, else from the cache folder, every mode that some row reads.

    rows: all of the reproduction; sets: the data sets by role and split, as plain images; report, told: as for `reproduce`.
    Raises DataError for a given store that no row can use, saying why.
    """

    def __init__(
        self,
        settings: Reproduction,
        rows: Sequence[Row],
        clip: FrozenCLIP,
        sets: Mapping[tuple[str, str], DepthDataset],
        device: torch.device,
        report: Callable[[str, int, int], None],
        told: Callable[[str], None] | None,
    ) -> None:
        self.settings, self.clip, self.sets, self.device, self.report, self.told = settings, clip, sets, device, report, told
        self.needs = settings.needs(list(rows))
        self._stores = self._fitting(settings.stores)

    def read(self, rows: Sequence[Row]) -> None:
        """Have everything that these rows will read, so that no row's minutes hold it."""
        for need, modes in self.settings.needs(list(rows)).items():
            for mode in modes:
                self._store(need, mode)

    def of(self, row: Row, split: str) -> Stored:
        """The views that a row learns from ("train") or is scored on ("test")."""
        need, mode = self.settings.need(row, split), row.settings["dense"]
        return Stored(self._store(need, mode), mode, device=self.device, flip=split == "train" and need[2].mirrored)

    def stored(self, row: Row, split: str) -> bool:
        """Whether some row reads the features that this one would."""
        return self.settings.need(row, split) in self.needs

    def _store(self, need: Need, mode: str) -> FeatureStore:
        if (need, mode) not in self._stores:
            role, split, views = need
            missing = [other for other in self.needs[need] if (need, other) not in self._stores]
            store = cached(
                self.clip, self._images(need), views, missing, told=self.told, avoidable=False, workers=self.settings.workers,
                device=self.device, precision=self.settings.precision,
                progress=lambda *n: self.report(f"reading {split} images of {self.settings.by_role()[role]}", *n),
            )  # fmt: skip
            self._stores |= {(need, other): store for other in missing}
        return self._stores[need, mode]

    def _images(self, need: Need) -> DepthDataset:
        """A split as its views are drawn: plain, or augmented."""
        role, split, views = need
        return self.sets[role, split] if views.count == 1 else open_dataset(self.settings.by_role()[role], split, augment=True)

    def _fitting(self, folders: Sequence[str]) -> dict[tuple[Need, str], FeatureStore]:
        """Given stores by what they are good for."""
        found: dict[tuple[Need, str], FeatureStore] = {}
        for store in map(FeatureStore, folders):
            reasons = []
            for need, modes in self.needs.items():
                _, split, views = need
                try:  # the data's fingerprint takes a look at every file: once for all modes
                    store.expect(clip=self.clip, dataset=self._images(need), views=views, precision=self.settings.precision)
                    held = [mode for mode in modes if mode in store.modes]
                    if not held:
                        store.expect(mode=modes[0])  # which says what it holds instead
                    found |= {(need, mode): store for mode in held}
                except DataError as error:
                    if store.split == split:
                        reasons.append(str(error))
            if store not in found.values():
                raise DataError(f"no row can use it: {reasons[0] if reasons else store.path}")
        return found
