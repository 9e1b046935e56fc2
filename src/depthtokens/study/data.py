"""The images that a study looks at."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..data.dataset import DepthDataset
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol
from ..depth.settings import SHIFT
from ..errors import DataError, UsageError
from ..experiment.named import NamedData
from ..experiment.source import Data, Reading, Source, open_source, scored_views
from ..features.store import FeatureStore


@dataclass(frozen=True)
class StudyData:
    """Images of a study.

    Attributes:
        test: patch features and truth of the test split, on which everything is scored.
        protocol: by which it is scored.
        train: patch features and truth of the training split, on which words are searched; None: no search.
        controls: the training split as images, which the constant and the mean map are learned from; None where it is not at hand.
        shown: the test split as images, for heat maps; None where it is not at hand.
        workers: processes that read depth maps for the controls.
    """

    test: Source
    protocol: Protocol
    train: Source | None = None
    controls: DepthDataset | None = None
    shown: DepthDataset | None = None
    workers: int = 0

    @property
    def searched_on(self) -> str | None:
        """The data set, split and number of images that words are searched on; None: no search."""
        return None if self.train is None else f"{self.train.name} {self.train.split}, {len(self.train.names)} images"


def open_study_data(
    model: DepthTokens,
    named: NamedData,
    protocol: Protocol,
    reading: Reading,
    *,
    search: bool = True,
    list_file: str | None = None,
    train_list: str | None = None,
    train_data: str | None = None,
) -> StudyData:
    """Both splits of the data that a model is studied on.

    Args:
        model: the tokens under study, whose patch features are read.
        named: the data set, or a store of its test split.
        protocol: by which the model is scored.
        reading: how patch features are had; its `list_file` gives way to those below.
        search: whether the training split's features are needed.
        list_file: the test split's list file, where it is not found under the data set's root.
        train_list: the training split's.
        train_data: a store of the training split's features ("store:FOLDER" or "FOLDER"), where `named` cannot give them.

    Raises:
        DataError: where there is no test split, or no training split to search on, or a store's data has changed.
        UsageError: as `open_source` and `check_condition`.
    """
    check_condition(model, images=True)
    store = named.store

    def source(data: Data, shown_by: Protocol, lines: str | None) -> Source:
        views = scored_views(shown_by, model.settings.normalisation)
        return open_source(model, data, views, replace(reading, list_file=lines))

    photos: DepthDataset | None = None
    training: DepthDataset | None = None
    try:
        photos = named.split("test", store.meta["data"]["list_file"] if store else list_file)
        if store:
            store.expect(dataset=photos)
    except DataError:
        if not store:
            raise
        photos = None  # features are enough for all but the heat maps
    test = store or photos
    assert test is not None
    try:
        training = named.split("train", train_list)
    except DataError as error:
        if search and train_data is None:
            hint = "give its list with --train-list, its features with --train-data, or use --no-search"
            raise DataError(f"no training split to search words on ({error}): {hint}") from error
    train: Source | None = None
    if search:
        words_on = _store(train_data) if train_data else training
        assert words_on is not None
        # Plain views of whole images, as `train --views 1` keeps them.
        train = source(words_on, replace(protocol, flip=False, input_crop=None), train_list)
    return StudyData(source(test, protocol, list_file), protocol, train, training, photos, reading.workers)


def check_condition(model: DepthTokens, images: bool) -> None:
    """Raise UsageError for tokens that a study cannot look at; with images it scores prompts, and nothing else that the image decides."""
    if model.settings.condition == SHIFT:
        raise UsageError("every image has prompts of its own with condition shift: there is no one set of tokens to study")
    if model.settings.condition and images:
        raise UsageError("a study scores prompts alone, and these tokens also have a factor on depth: leave out --data, or use `evaluate`")


def _store(name: str) -> FeatureStore:
    """A store by its folder, whose data has not changed."""
    store = FeatureStore(name.removeprefix("store:"))
    store.check_data()
    return store
