"""The demonstration: the paper's comparison on rendered scenes with the bundled CLIP, without any download."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..clip.load import FrozenCLIP, load_clip
from ..depth.checkpoint import restore
from ..depth.metrics import METRICS
from ..depth.model import DepthTokens
from ..depth.protocol import Head
from ..depth.settings import ModelOptions, ModelSettings, Provenance
from ..errors import DepthTokensError
from ..experiment.config import RIDGE
from ..experiment.controls import learn_controls
from ..experiment.evaluate import head_of, score_heads
from ..experiment.learn import Learner, fit
from ..experiment.result import Result
from ..experiment.ridge import learn_ridge
from ..experiment.source import Reading, Source, open_source
from ..features.views import Views
from ..files import cache_folder, locked, make_folder
from ..progress import Progress, prefixed, silent
from ..scenes import RENDERER_VERSION, Scenes

ROWS: dict[str, ModelOptions] = {
    "depth-7": ModelOptions(depth="depth-7"),
    "size-7": ModelOptions(depth="size-7"),
    "colour-7": ModelOptions(depth="colour-7"),
    "random-7": ModelOptions(depth="random:7"),
    "rand-txt-7": ModelOptions(depth="rand-txt-7"),
    "learned-7": ModelOptions(depth="learned:7"),
    "4o4d + depth-7": ModelOptions(template="4o4d", depth="depth-7"),
    "4o4d + learned-7": ModelOptions(template="4o4d", depth="learned:7"),
    "learned-20 log": ModelOptions(depth="learned:20", bins="log"),
}
"""The lines of the demonstration's table: what is said to CLIP, and over which bins. `DemoSettings` gives the rest."""
WORDS, LEARNED = "depth-7", "learned-7"
"""The two rows that the page shows pictures of."""


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demonstration; chosen on scenes of other seeds than those it trains and tests on.

    Attributes:
        domain: of the scenes, "indoor" or "road".
        seed: of scenes, vectors and training order.
        train, test: number of scenes.
        size: of a scene, (height, width) in pixels.
        dense: how patch features are read.
        scale: factor on similarities.
        epochs, lr, batch_size: of learning tokens, on stored features of the scenes, half of them mirrored.
        protocol: by which every row is scored.
    """

    domain: str = "indoor"
    seed: int = 0
    train: int = 800
    test: int = 200
    size: tuple[int, int] = (208, 272)
    dense: str = "value"
    scale: str | float = 40.0
    epochs: int = 8
    lr: float = 1e-2
    batch_size: int = 16
    protocol: str = "auty2023"

    def model(self, options: ModelOptions, depth_range: tuple[float, float]) -> ModelSettings:
        """All settings of a row's model, on scenes of that range (metres)."""
        return replace(options, dense=self.dense, scale=self.scale, seed=self.seed).on(depth_range, min(self.size))

    def steps(self) -> int:
        """Optimiser steps of one row."""
        return self.epochs * -(-self.train // self.batch_size)

    def training(self) -> dict[str, Any]:
        """What a token file tells of its training, as plain values."""
        return json.loads(json.dumps({"demo": asdict(self), "renderer": RENDERER_VERSION}))


@dataclass(frozen=True)
class Demo:
    """A finished demonstration.

    Attributes:
        settings: what was asked.
        clip: the bundled CLIP.
        results: by the name of the row: the controls, then `ROWS`. A row trains no number (words), its tokens, one number (the
            constant), H·W (the mean map) or C + 1 (the ridge).
        models: behind the rows of `ROWS`.
        test: the test scenes.
        tokens: the token file of "learned-7".
        seconds: that it took.
    """

    settings: DemoSettings
    clip: FrozenCLIP
    results: Mapping[str, Result]
    models: Mapping[str, DepthTokens]
    test: Scenes
    tokens: Path
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The table as plain values, for JSON."""
        return {
            "rows": [
                {
                    "name": name,
                    "trained_parameters": result.parameters,
                    "scores": {metric: result.score(metric) for metric in METRICS},
                }
                for name, result in self.results.items()
            ]
        }


def run_demo(settings: DemoSettings, out: Path, progress: Progress = silent, cache: Path | None = None) -> Demo:
    """Render scenes (cached), learn tokens on the frozen bundled CLIP, and score every row by one protocol.

    Token files are written to OUT/tokens as soon as they are learned; one that is there and was learned under the same settings is
    used, so that an interrupted run goes on.

    Args:
        settings: what to run.
        out: folder for the token files.
        progress: called with what is being done.
        cache: folder for rendered scenes, with their patch features beside it; None = the user's cache folder.

    Raises:
        DepthTokensError: where `out` cannot be written.
        DataError: where another demonstration is learning tokens there.
    """
    started = time.monotonic()
    folder = out / "tokens"
    make_folder(folder, "run in a folder of your own, or give --out")
    clip = load_clip("bundled")
    cache = cache or cache_folder() / "scenes"
    train, test = (
        Scenes(settings.domain, split, count, settings.size, settings.seed, cache, progress=progress)
        for split, count in (("train", settings.train), ("test", settings.test))
    )
    models = {name: DepthTokens.of(clip, settings.model(options, train.depth_range)) for name, options in ROWS.items()}
    # All rows read the same patch features, so those of any of them serve all.
    reading = Reading(cache=True, batch_size=8, workers=0, folder=cache.parent, progress=progress)
    views = Views(mirrored=True)
    training = open_source(models[LEARNED], train, views, reading, flip=True)
    testing = open_source(models[LEARNED], test, views, reading)
    with locked(out):
        for name, model in models.items():
            path = token_file(folder, name)
            if model.trainable() and not _recall(model, path, settings):
                _learn(model, training, settings, prefixed(progress, f"{name}: "))
                model.save(path)
    controls = learn_controls(train, train.depth_range, workers=0, progress=progress)
    ridge = learn_ridge(open_source(models[LEARNED], train, views, reading), progress=progress)
    heads: dict[str, Head] = {RIDGE: ridge, **{name: head_of(model) for name, model in models.items()}}
    scores = score_heads(heads, testing, settings.protocol, controls, progress)
    parameters = {name: sum(p.numel() for p in model.trainable().values()) for name, model in models.items()}
    results = {
        name: Result.of([scores[name]], seeds=[settings.seed], parameters=count)
        for name, count in (controls.parameters | {RIDGE: ridge.parameters} | parameters).items()
    }
    return Demo(settings, clip, results, models, test, token_file(folder, LEARNED), time.monotonic() - started)


def token_file(folder: Path, name: str) -> Path:
    """Where the tokens of a row are kept."""
    return folder / f"{name.replace(' ', '')}.safetensors"


def _learn(model: DepthTokens, source: Source, settings: DemoSettings, progress: Progress) -> None:
    """Train a row's tokens."""
    fit([Learner(model, settings.steps(), lr=settings.lr)], source, batch_size=settings.batch_size, progress=progress)
    model.provenance = Provenance(settings.protocol, settings.training())


def _recall(model: DepthTokens, path: Path, settings: DemoSettings) -> bool:
    """Take the tokens at `path` if they were learned on this CLIP under the same settings; says whether."""
    if not path.is_file():
        return False
    try:
        saved = DepthTokens.load(path, model.clip)
    except DepthTokensError:
        return False
    if saved.provenance.training != settings.training() or saved.settings != model.settings:
        return False
    restore(model.state(), saved.state(), path)
    model.provenance = saved.provenance
    return True
