"""The images that a study looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ..data.dataset import DepthDataset
from ..depth.protocol import Protocol
from ..errors import DataError
from ..experiment.scored import ScoredData
from ..experiment.source import Source
from ..features.store import FeatureStore

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class StudyData:
    """Images of a study. train, test: patch features and truth of the two splits; train None: no search.

    controls: the training split that constant and mean map are learned from, shown: the test split as photos; None where not at hand.
    """

    test: Source
    protocol: Protocol
    train: Source | None = None
    controls: DepthDataset | None = None
    shown: DepthDataset | None = None
    workers: int = 0


def open_study_data(
    on: ScoredData,
    *,
    search: bool = True,
    list_file: str | None = None,
    train_list: str | None = None,
    train_data: str | None = None,
    report: Report | None = None,
) -> StudyData:
    """Both splits of what a model is scored on.

    search: whether the training split's features are needed; train_data: a store of them, where they are not to be had through `on`.
    Raises DataError where there is no test split, or no training split to search on.
    """
    said = report or (lambda label, done, total: None)

    def source(data: DepthDataset | FeatureStore, protocol: Protocol, lines: str | None) -> Source:
        return on.source(data, protocol=protocol, list_file=lines, progress=partial(said, f"reading {data.split} images"))

    photos: DepthDataset | None = None
    training: DepthDataset | None = None
    try:
        photos = on.split("test", on.store.meta["data"]["list_file"] if on.store else list_file)
        if on.store:
            on.store.expect(dataset=photos)
    except DataError:
        if not on.store:
            raise
        photos = None  # features are enough for all but the heat maps
    test = on.store or photos
    assert test is not None
    try:
        training = on.split("train", train_list)
    except DataError as error:
        if search and train_data is None:
            hint = "give its list with --train-list, its features with --train-data, or use --no-search"
            raise DataError(f"no training split to search words on ({error}): {hint}") from error
    train: Source | None = None
    if search:
        words_on = FeatureStore(train_data.removeprefix("store:")) if train_data else training
        assert words_on is not None
        # Plain views of whole images, as `train --views 1` keeps them.
        train = source(words_on, replace(on.protocol, flip=False, input_crop=None), train_list)
    return StudyData(source(test, on.protocol, list_file), on.protocol, train, training, photos, on.workers)
