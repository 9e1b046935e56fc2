"""What the page makes of words that people type: a map of depth beside the tokens', and how well they do on sample scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import torch
from markupsafe import Markup
from torch import Tensor

from ...demo.page import masked
from ...depth.depthmap import COLOURS, colourise
from ...depth.metrics import METRICS, Errors, Target
from ...depth.model import DepthTokens
from ...depth.protocol import Head, find_protocol
from ...errors import UsageError
from ...experiment.config import CONSTANT
from ...experiment.controls import learn_controls
from ...experiment.evaluate import head_of
from ...experiment.source import Reading, open_source, scored_views
from ...files import cache_folder
from ...progress import Notify, Progress, silent
from ...prompt.scales import SCALES
from ...prompt.template import TEMPLATES, parse_template
from ...report.html import as_png, fragment
from ...report.table import Cell, Table
from ...scenes import Scenes
from .photos import scale_bar

SAMPLES = 50
"""How many scenes words are scored on, and of another split how many the control is learned on."""
FAR = 20.0
"""Metres: tokens that reach farther are shown roads, others rooms."""
MOST_WORDS, LONGEST = 64, 2000
"""How many words are taken at most, and how many characters they, a template or bins may have together."""
SCORE = METRICS["abs_rel"]
"""What words are scored by."""


class Sample:
    """Test scenes that no tokens of this package were learned on, with their patch features in memory; those come from the cache.

    Attributes:
        scenes: the scenes.
        constant: the score of one constant depth, learned on as many training scenes.

    Args:
        model: whose image tower reads them; its range decides between rooms and roads, its training images on their size.
        progress: called as scenes are rendered and read.
        notify: called before features are stored.

    Raises:
        DataError: where the cache cannot be written.
    """

    def __init__(self, model: DepthTokens, progress: Progress = silent, notify: Notify = silent) -> None:
        domain = "road" if model.depth_range[1] > FAR else "indoor"
        side = min(model.settings.predict_side or 208, 480)
        size, cache = (side, side * 4 // 3 // 16 * 16), cache_folder() / "scenes"
        train, self.scenes = (Scenes(domain, split, SAMPLES, size, cache=cache, progress=progress) for split in ("train", "test"))
        self.protocol = find_protocol("auty2023")
        views = scored_views(self.protocol, model.settings.normalisation)
        reading = Reading(cache=True, batch_size=8, workers=0, hint="", progress=progress, notify=notify)
        self._shown = list(open_source(model, self.scenes, views, reading).evaluation(self.protocol))
        self._targets = [
            Target(truth[None], self.protocol.valid(truth[None], self.scenes.depth_range, self.scenes.eval_crop))
            for shown in self._shown
            for truth in shown.truth[:, 0]
        ]
        self.constant = self.score(learn_controls(train, train.depth_range, workers=0).heads(self.protocol)[CONSTANT])

    def depth(self, head: Head, index: int) -> Tensor:
        """What a head makes of a scene: [H, W] metres."""
        for shown in self._shown:
            if index in shown.indices:
                place = shown.indices.index(index)
                mirrored = None if shown.mirrored is None else shown.mirrored[place : place + 1]
                return self._full(head, shown.patches[place : place + 1], mirrored)[0, 0]
        raise UsageError(f"scenes have numbers from 0 to {len(self.scenes) - 1}")

    def score(self, head: Head) -> float:
        """The mean of `SCORE` over all scenes, as `evaluate` gives it."""
        depths = (depth for shown in self._shown for depth in self._full(head, shown.patches, shown.mirrored))
        scores = [
            SCORE.finish(float(SCORE.pixels(Errors(depth[target.valid], target.truth, target.log)).double().mean()))
            for depth, target in zip(depths, self._targets, strict=True)
        ]
        return sum(scores) / len(scores)

    def _full(self, head: Head, patches: Tensor, mirrored: Tensor | None) -> Tensor:
        """Depth [B, 1, H, W] metres of patch features."""
        size, flipped = self.scenes.job.size, None if mirrored is None else head(mirrored)
        return self.protocol.full_size(head(patches), flipped, size, self.scenes.depth_range).cpu()


class Words:
    """Words that people type, beside the tokens that were loaded.

    Attributes:
        model: with the tokens.
        sample: scenes that both are looked at on.
    """

    def __init__(self, model: DepthTokens, sample: Sample) -> None:
        self.model, self.sample, self._head = model, sample, head_of(model)
        self._tokens = sample.score(self._head)
        self._scales = lru_cache(maxsize=16)(self._read_scales)
        self._scored = lru_cache(maxsize=64)(self._score_scale)
        self._scales(TEMPLATES["baseline"])  # now, since the first answer should be as fast as the others

    def answer(self, text: str, template: str, bins: str, index: int) -> Markup:
        """Pictures of a scene and scores, for words.

        Args:
            text: the words, near to far, one a line or with | between them.
            template: as in `DepthTokens`, with {depth} and without {ctx}.
            bins: as in `DepthTokens`.
            index: of the scene.

        Raises:
            UsageError: for what makes no model, or is too long.
        """
        spoken = self.spoken(text, template, bins)
        head = head_of(spoken)
        rows: list[list[Cell]] = [["your words", self.sample.score(head)], ["the loaded tokens", self._tokens]]
        if near := self.nearest_scale(spoken):
            name, cosine = near
            rows.insert(1, [f"{name}, the nearest hand-made scale (cosine {cosine:.3f})", self._scored(name, template, bins)])
        rows.append(["one constant depth, whatever the image", self.sample.constant])
        table = Table(["", SCORE.heading], rows, kinds=["learned" if row[0] == "your words" else "" for row in rows], narrow=True)
        centres = [f"{word}: {centre:.3g} m" for word, centre in zip(spoken.words, spoken.settings.centres, strict=True)]
        return fragment(
            "app/words.html", pictures=self._pictures(head, index), scores=table, count=SAMPLES, centres=centres, near=near,
            scale=scale_bar(*self.sample.scenes.depth_range, COLOURS, "m"),
        )  # fmt: skip

    def spoken(self, text: str, template: str, bins: str) -> DepthTokens:
        """The model of words. Raises UsageError as `answer`."""
        if max(len(text), len(template), len(bins)) > LONGEST:
            raise UsageError(f"this is longer than the {LONGEST} characters that are read here: make it shorter")
        words = [word.strip() for word in text.replace("|", "\n").splitlines() if word.strip()]
        if not 2 <= len(words) <= MOST_WORDS:
            raise UsageError(f"give from 2 to {MOST_WORDS} words or phrases, from near to far, one a line: these are {len(words)}")
        if parse_template(template).contexts:
            raise UsageError("words stand in a plain sentence here: {ctx} slots are for learned vectors, leave them out")
        return self._model("|".join(words), template, bins.strip())

    def nearest_scale(self, spoken: DepthTokens) -> tuple[str, float] | None:
        """The hand-made scale with as many words that is nearest in meaning: its name, and the mean cosine of its text features."""
        own = _features(spoken)
        scales = {name: text for name, text in self._scales(spoken.settings.template).items() if len(text) == len(own)}
        near = {name: float((own * text).sum(dim=1).mean()) for name, text in scales.items()}
        return max(near.items(), key=lambda item: item[1]) if near else None

    def _model(self, words: str, template: str, bins: str) -> DepthTokens:
        """Words in the place of the tokens; all else stays."""
        settings = self.model.settings
        scale = float(self.model.log_scale.exp()) if settings.scale == "learned" else settings.scale
        changed = replace(
            settings, depth=words, template=template, bins=bins, scale=scale, init="random", batchnorm="frozen", condition=None
        )
        return DepthTokens.of(self.model.clip, changed)

    def _read_scales(self, template: str) -> Mapping[str, Tensor]:
        """Text features of every hand-made scale that this CLIP's vocabulary has."""
        found = {}
        for name in SCALES:
            try:
                found[name] = _features(self._model(name, template, "linear"))
            except UsageError:  # a scale of single tokens, of another vocabulary
                continue
        return found

    def _score_scale(self, name: str, template: str, bins: str) -> float:
        """The score of a hand-made scale."""
        return self.sample.score(head_of(self._model(name, template, bins)))

    def _pictures(self, head: Head, index: int) -> dict[str, bytes]:
        """A scene, its truth, and what words and tokens make of it: title -> PNG."""
        rgb, truth = self.sample.scenes.read(index)
        maps = {"your words": head, "the loaded tokens": self._head}
        lo, hi = self.sample.scenes.depth_range
        depths = {title: colourise(self.sample.depth(made, index).numpy(), lo, hi) for title, made in maps.items()}
        pictures = {"scene": rgb, "true depth": masked(colourise(truth, lo, hi), truth), **depths}
        return {title: as_png(picture) for title, picture in pictures.items()}


def _features(model: DepthTokens) -> Tensor:
    """Text features [N, C] of a model's sentences, L2-normalised."""
    with torch.inference_mode():
        return model.text_features()
