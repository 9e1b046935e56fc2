"""The stored features that a reproduction's rows read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..clip.load import FrozenCLIP
from ..data.dataset import DepthDataset
from ..depth.linear import Trainable
from ..errors import DataError
from ..experiment.source import Reading, Source, Stored, open_source
from ..features.cache import is_cached
from ..features.plan import Plan, plan
from ..features.store import FeatureStore
from ..features.views import Views
from ..progress import Notify, Progress
from .rows import Row
from .settings import Reproduction

Need = tuple[str, str, Views]
"""Role, split and views, see `Reproduction.need`."""


class RowFeatures:
    """Patch features by row and split: from given stores where they fit, else through the cache, every mode that some row reads at once.

    Args:
        settings: of the reproduction.
        rows: all of its rows.
        sets: the data sets by role and split, as plain images.
        draw: opens a split, by role and split, to show random views.
        progress: called as images are read.
        notify: called with a line before features are stored.
    """

    def __init__(
        self,
        settings: Reproduction,
        rows: Sequence[Row],
        sets: Mapping[tuple[str, str], DepthDataset],
        draw: Callable[[str, str], DepthDataset],
        progress: Progress,
        notify: Notify,
    ) -> None:
        self.settings, self.sets, self._draw = settings, sets, draw
        self.reading = Reading(
            cache=True, workers=settings.workers, precision=settings.precision, hint="", progress=progress, notify=notify
        )  # fmt: skip
        self.needs = settings.needs(list(rows))
        self._stores: dict[tuple[Need, str], FeatureStore] = {}

    def of(self, row: Row, split: str, model: Trainable) -> Source:
        """The views that a row's model learns from ("train") or is scored on ("test")."""
        need, mode = self.settings.need(row, split), model.settings.dense
        views = need[2]
        flip = split == "train" and views.mirrored and row.learns  # what is not trained sees each image once, as it is
        known = self._stores.get((need, mode))
        missing = [other for other in self.needs.get(need, []) if (need, other) not in self._stores and other != mode]
        source = open_source(model, known or self._images(need), views, self.reading, flip=flip, together=missing)
        if known is None and isinstance(source, Stored):
            self._stores |= {(need, other): source.store for other in (mode, *missing)}
        return source

    def stores(self) -> list[FeatureStore]:
        """Those that are used, each once."""
        return list({store.path: store for store in self._stores.values()}.values())

    def unmade(self, clip: FrozenCLIP) -> list[Plan]:
        """The stores that rows will need and that are neither given nor in the cache folder."""
        found = []
        for need, modes in self.needs.items():
            if missing := [mode for mode in modes if (need, mode) not in self._stores]:
                planned = plan(clip, self._images(need), need[2], missing, precision=self.settings.precision)
                if not is_cached(planned):
                    found.append(planned)
        return found

    def stored(self, row: Row, split: str) -> bool:
        """Whether some row reads the features that this one would."""
        return self.settings.need(row, split) in self.needs

    def _images(self, need: Need) -> DepthDataset:
        """A split as its views are drawn: plain, or augmented."""
        role, split, views = need
        return self.sets[role, split] if views.count == 1 else self._draw(role, split)

    def take(self, folders: Sequence[str], clip: FrozenCLIP) -> None:
        """Use given stores for what they are good for.

        Args:
            folders: of the stores.
            clip: the reproduction's.

        Raises:
            DataError: for a store that no row can use, saying why.
        """
        for store in map(FeatureStore, folders):
            reasons = []
            for need, modes in self.needs.items():
                _, split, views = need
                try:  # the data's fingerprint takes a look at every file: once for all modes
                    store.expect(clip=clip, dataset=self._images(need), views=views, precision=self.settings.precision)
                    held = [mode for mode in modes if mode in store.modes]
                    if not held:
                        store.expect(mode=modes[0])  # which says what it holds instead
                    self._stores |= {(need, mode): store for mode in held}
                except DataError as error:
                    if store.split == split:
                        reasons.append(str(error))
            if store not in self._stores.values():
                raise DataError(f"no row can use it: {reasons[0] if reasons else store.path}")
