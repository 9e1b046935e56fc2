"""The demonstration: the paper's comparison on procedural scenes with the bundled CLIP, without any download."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..clip.load import FrozenCLIP, load_clip
from ..scenes import RENDERER_VERSION, Scenes
from ..depth.checkpoint import model_tensors, restore_tensors
from ..depth.model import DepthTokens
from ..depth.protocol import find_protocol
from ..errors import DepthTokensError, WeightsError
from ..experiment.controls import learn_controls
from ..experiment.evaluate import Row, Scores, score_rows, token_row
from ..experiment.learn import Learner, fit
from ..experiment.source import Stored
from ..features.cache import cached
from ..features.views import Views
from ..files import cache_folder

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demonstration; chosen on scenes of other seeds than those it trains and tests on.

    train, test: number of scenes, of size (height, width) pixels. epochs, lr, batch_size: of learning tokens, at the given logit scale and
    dense mode, on stored features of the scenes, half of them mirrored. protocol: as in `depth.protocol`.
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


@dataclass(frozen=True)
class DemoRow:
    """One line of the demonstration's table: what is said to CLIP, and over which bins."""

    name: str
    template: str
    depth: str
    bins: str = "linear"


ROWS = (
    DemoRow("depth-7", "baseline", "depth-7"),
    DemoRow("size-7", "baseline", "size-7"),
    DemoRow("colour-7", "baseline", "colour-7"),
    DemoRow("random-7", "baseline", "random:7"),
    DemoRow("rand-txt-7", "baseline", "rand-txt-7"),
    DemoRow("learned-7", "baseline", "learned:7"),
    DemoRow("4o4d + depth-7", "4o4d", "depth-7"),
    DemoRow("4o4d + learned-7", "4o4d", "learned:7"),
    DemoRow("learned-20 log", "baseline", "learned:20", "log"),
)


@dataclass(frozen=True)
class DemoResult:
    """One measured line: trained_parameters is 0 for words, one for the constant, H·W for the mean map."""

    name: str
    trained_parameters: int
    scores: Scores


@dataclass(frozen=True)
class Demo:
    """A finished demonstration: its rows, the models behind them, the controls' rows, and the test scenes."""

    settings: DemoSettings
    clip: FrozenCLIP
    results: list[DemoResult]
    models: dict[str, DepthTokens]
    controls: dict[str, Row]
    test: Scenes
    tokens: Path
    seconds: float


def run_demo(settings: DemoSettings, out: Path, report: Report | None = None, cache: Path | None = None) -> Demo:
    """Render scenes (cached), learn tokens on the frozen bundled CLIP, and score every row by one protocol.

    Token files are written to OUT/tokens as soon as they are learned; one that is there and was learned under the same settings is
    used, so that an interrupted run goes on. Raises DepthTokensError where OUT cannot be written.
    """
    started = time.monotonic()

    def said(label: str) -> Callable[[int, int], None]:
        return lambda done, total: report(label, done, total) if report else None

    try:
        (out / "tokens").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DepthTokensError(f"cannot write to {out}: {error.strerror}; run in a folder of your own, or give --out") from error
    clip = load_clip("bundled")
    cache = cache or cache_folder() / "scenes"
    train, test = (
        Scenes(settings.domain, split, count, settings.size, settings.seed, cache, progress=said(f"rendering {split} scenes"))
        for split, count in (("train", settings.train), ("test", settings.test))
    )
    models = {row.name: _model(clip, row, settings, train.depth_range) for row in ROWS}
    views = Views(mirrored=True)
    stored = {
        split: cached(clip, scenes, views, [settings.dense], folder=cache.parent, workers=0, progress=said(f"reading {split} scenes"))
        for split, scenes in (("train", train), ("test", test))
    }
    for row in ROWS:
        model, path = models[row.name], out / "tokens" / f"{row.name.replace(' ', '')}.safetensors"
        if not model.trainable():
            continue
        key = {"demo": asdict(settings), "renderer": RENDERER_VERSION}
        if not _recall(model, path, key):
            source = Stored(stored["train"], settings.dense, flip=True, seed=settings.seed)
            steps = settings.epochs * -(-settings.train // settings.batch_size)
            learner = Learner(model, steps, lr=settings.lr)
            fit([learner], source, batch_size=settings.batch_size, progress=said(f"learning {row.name}"))
            model.provenance = {"protocol": settings.protocol, "training": key}
            model.save(path)
    rows: dict[str, Row] = {name: token_row(model) for name, model in models.items()}
    learned = learn_controls(train, train.depth_range, workers=0)
    controls = learned.rows(find_protocol(settings.protocol))
    scores = score_rows(
        {**controls, **rows}, Stored(stored["test"], settings.dense), settings.protocol, image_free=controls,
        progress=said("scoring test scenes"),
    )  # fmt: skip
    trained = {name: sum(p.numel() for p in model.trainable().values()) for name, model in models.items()}
    trained |= {"constant": 1, "mean map": learned.mean_map.numel()}
    results = [DemoResult(name, trained[name], score) for name, score in scores.items()]
    return Demo(settings, clip, results, models, controls, test, out / "tokens" / "learned-7.safetensors", time.monotonic() - started)


def _model(clip: FrozenCLIP, row: DemoRow, settings: DemoSettings, depth_range: tuple[float, float]) -> DepthTokens:
    return DepthTokens(
        clip,
        row.template,
        row.depth,
        row.bins,
        depth_range,
        settings.dense,
        settings.scale,
        seed=settings.seed,
        predict_side=settings.size[0],
    )


def _recall(model: DepthTokens, path: Path, key: dict[str, Any]) -> bool:
    """Take the tokens at `path` if they were learned on this CLIP under the same settings."""
    if not path.is_file():
        return False
    try:
        saved = DepthTokens.load(path, model.clip)
    except WeightsError:
        return False
    if saved.provenance.get("training") != json.loads(json.dumps(key)) or saved.settings != model.settings:
        return False
    restore_tensors(model, model_tensors(saved), path)
    model.provenance = saved.provenance
    return True
