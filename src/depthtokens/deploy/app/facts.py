"""What the page tells of the tokens that were loaded: how they lie to each other, and which words lie near."""

from __future__ import annotations

from functools import cached_property

from markupsafe import Markup

from ...clip.bundled import trained_tokens
from ...depth.model import DepthTokens
from ...errors import UsageError
from ...progress import Progress, silent
from ...report.html import fragment
from ...study.geometry import pairwise, path
from ...study.neighbours import Neighbour, depth_features, nearest_words
from ...study.plots import distance_map, path_plot


class Facts:
    """What the tokens of a model are like. Everything is found when it is first asked for, and kept."""

    def __init__(self, model: DepthTokens) -> None:
        self.model = model
        self._neighbours: list[list[Neighbour]] | None = None

    @cached_property
    def shape(self) -> Markup:
        """Distances between tokens, and the path through them."""
        features, centres = depth_features(self.model), self.model.settings.centres
        labels = [f"{name} ({centre:.2g} m)" for name, centre in zip(self._names(), centres, strict=True)]
        try:
            along = path(features, self.model.centres)
        except UsageError:  # two tokens
            along = None
        return fragment(
            "app/shape.html", settings=self.model.settings, clip=self.model.clip.identity, path=along,
            distances=distance_map(pairwise(features).cpu(), labels), points=path_plot(along, centres, labels) if along else None,
        )  # fmt: skip

    def neighbours(self, progress: Progress = silent) -> Markup:
        """The nearest words of each token; of the bundled CLIP among those that it has seen in training, else in the whole vocabulary.

        Args:
            progress: called as the vocabulary is encoded.
        """
        bundled, centres = self.model.clip.name == "bundled", self.model.settings.centres
        if self._neighbours is None:
            seen = [index for index, token in trained_tokens().items() if not token.startswith("<")] if bundled else None
            self._neighbours = nearest_words(self.model, seen, progress=progress)
        rows = list(zip(self._names(), centres, self._neighbours, strict=True))
        return fragment("app/neighbours.html", rows=rows, seen=bundled, fragments=self.model.clip.tokenizer.marks_ends)

    def _names(self) -> list[str]:
        """What the tokens are called."""
        return self.model.words or [f"depth_{i}" for i in range(len(self.model.centres))]
