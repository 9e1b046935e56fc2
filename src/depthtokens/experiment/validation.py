"""Scores of a run while it trains, on its data set's test split. They are logged, never acted on: the last tokens are the run's result."""

from __future__ import annotations

from dataclasses import replace

from ..data import states_units
from ..depth.metrics import METRICS, QUOTED
from ..depth.model import DepthTokens
from ..depth.protocol import find_protocol
from ..progress import Progress
from .config import Experiment
from .evaluate import head_of, score_heads
from .named import NamedData
from .source import Reading, open_source, scored_views


class Validation:
    """Scores a model that is being trained, by its experiment's protocol.

    Args:
        experiment: whose data has the test split, and which says how often it is scored.
        model: that is being trained; its test features are kept in the cache folder where its trunk is frozen, as training features are.
        reading: how its training images are read.
        progress: called as images are scored.

    Raises:
        UsageError: for data without a test split.
        DataError: for test images that are not there, or cannot be read.
    """

    def __init__(self, experiment: Experiment, model: DepthTokens, reading: Reading, progress: Progress) -> None:
        self.every, self.model, self.progress = experiment.validate, model, progress
        self.protocol = find_protocol(experiment.protocol)
        depth_range = experiment.depth_range if states_units(experiment.data) else None
        data = NamedData(experiment.data, experiment.depth_scale, depth_range, experiment.nyu_depth).split("test")
        kept = replace(reading, cache=experiment.cache, list_file=None)
        self.source = open_source(model, data, scored_views(self.protocol, experiment.normalisation), kept)

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether a run of so many epochs is scored after this one, counted from 1: every so often, and at its end."""
        return epoch % self.every == 0 or epoch == epochs

    def scores(self) -> dict[str, float]:
        """Metric name -> the figure that the protocol quotes. The model goes on training as if it had not been scored."""
        try:
            return score_heads({"": head_of(self.model)}, self.source, self.protocol, progress=self.progress)[""].quoted
        finally:
            self.model.train()


def in_words(scores: dict[str, float]) -> str:
    """Scores in a few words: those metrics that tables quote."""
    return ", ".join(f"{METRICS[name].label} {scores[name]:.3f}" for name in QUOTED)
