"""Tables side by side: every row of the paper, and the effects it leaves mixed, on features that are computed once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch

import depthtokens

from ..clip.load import FrozenCLIP, load_clip
from ..clip.device import autocast
from ..data import open_dataset
from ..depth.checkpoint import model_tensors, restore_tensors, write
from ..depth.linear import LinearHead
from ..depth.model import DepthTokens
from ..clip.image import trained_like_imagenet
from ..depth.protocol import find_protocol
from ..errors import UsageError
from ..files import atomic
from ..experiment.config import Experiment
from ..experiment.controls import learn_controls
from ..clip.device import find_device
from ..experiment.evaluate import Scores, image_encoder, score_rows, token_row
from ..experiment.learn import Learner, epoch_order, fit
from .settings import Reproduction
from ..experiment.result import RowResult, slug
from .features import RowFeatures
from .rows import Row
from ..experiment.source import Images, Stored
from ..experiment.train import CONFIG, train

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""
PLAN = "plan.json"


@dataclass(frozen=True)
class Reproduced:
    """A finished reproduction. facts: recipe, CLIP, data and versions, for whoever repeats it; rows: results, the controls' last."""

    settings: Reproduction
    facts: dict[str, Any]
    rows: list[RowResult]


def reproduce(settings: Reproduction, report: Report | None = None, told: Callable[[str], None] | None = None) -> Reproduced:
    """Run every row of the tables asked for; `out` keeps each as soon as it is done, so that a stopped run goes on there.

    told: called with a line before features are stored. Raises UsageError for rows without data, seeds that are none, or an `out` that
    holds a reproduction of another version, CLIP, data or recipe; DataError for data that cannot be read or stores that do not fit.
    """
    run = _Run(settings, report or (lambda *_: None), told)
    run.read()
    results = []
    for number, row in enumerate(run.rows):
        run.step = f"{number + 1}/{len(run.rows)} {row.name}"
        results.append(run.result(row))
    controls = [control for role in run.data for control in run.controls(role)]
    return Reproduced(settings, run.facts, [*results, *controls])


class _Run:
    """The CLIP, the data, their stores, and the folder of finished rows."""

    def __init__(self, settings: Reproduction, report: Report, told: Callable[[str], None] | None) -> None:
        self.settings, self._report = settings, report
        self.step = ""
        self.seeds, self.data, self.out = settings.seed_list(), settings.by_role(), Path(settings.out)
        self.device = find_device(settings.device)
        autocast(self.device, settings.precision)
        self.sets = {(role, split): open_dataset(spec, split) for role, spec in self.data.items() for split in ("train", "test")}
        self.clip = load_clip(settings.clip, settings.weights)
        self.rows = [_of(self.clip, row) for row in settings.rows()]
        self.facts: dict[str, Any] = {
            "recipe": {**settings.recipe(), "clip": self.clip.name, "weights": self.clip.weights},
            "clip": self.clip.fingerprint,
            "data": {
                f"{role} {split}": {
                    "data": self.data[role],
                    "images": len(data),
                    "fingerprint": data.fingerprint(),
                    "depth_range": data.depth_range,
                    "eval_crop": data.eval_crop,
                }
                for (role, split), data in self.sets.items()
            },
            "versions": {"depthtokens": depthtokens.__version__, "torch": torch.__version__, "open_clip": open_clip.__version__},
        }
        self.features = RowFeatures(settings, self.rows, self.clip, self.sets, self.device, self.report, told)
        self._begin()
        self.clip.to(self.device)

    def report(self, what: str, done: int, total: int) -> None:
        """Say how far the present step is."""
        self._report(f"{self.step}: {what}", done, total)

    def _begin(self) -> None:
        """Say in the folder what is being done there. Raises UsageError where something else was begun."""
        path, now = self.out / PLAN, json.loads(json.dumps(self.facts))
        if path.is_file():
            try:
                then = json.loads(path.read_text(encoding="utf-8"))
                other = [key for key in ("recipe", "clip", "versions") if now[key] != then[key]]
                other += [key for key in now["data"].keys() & then["data"].keys() if now["data"][key] != then["data"][key]]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{path} is damaged: choose another --out") from error
            if other:
                raise UsageError(f"{self.out} holds a reproduction with other {', '.join(other)} than asked for: choose another --out")
            now["data"] = then["data"] | now["data"]
        elif self.out.is_file() or (self.out.is_dir() and any(self.out.iterdir())):
            raise UsageError(f"the output folder {self.out} holds other things: choose another --out")
        for folder in ("rows", "tokens"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            file.write(json.dumps(now, indent=1).encode())

    def read(self) -> None:
        """Have all stored features that rows still to be run will need, so that no row's minutes hold them."""
        self.step = "features"
        self.features.read([row for row in self.rows if not self._file(row).is_file()])

    def result(self, row: Row) -> RowResult:
        """Run a row, or take it from the folder, where a row of other name may be the same."""
        path = self._file(row)
        twin = next((other for other in self.rows if other.same(row) and self._file(other).is_file()), row)
        if not self._file(twin).is_file():
            started = time.monotonic()
            seeds = self.seeds if row.seeded else self.seeds[:1]
            scores, parameters = self._run(row, seeds)
            RowResult.of(row, seeds, scores, parameters, (time.monotonic() - started) / 60).write(path)
        elif twin is not row and not path.is_file():
            replace(RowResult.read(self._file(twin)), row=row).write(path)
            for seed in self.seeds:
                if self._tokens(twin, seed).is_file():
                    with atomic(self._tokens(row, seed)) as file:
                        file.write(self._tokens(twin, seed).read_bytes())
        return RowResult.read(path)

    def controls(self, role: str) -> list[RowResult]:
        """A constant depth and the mean map of a data set's training split, by each protocol that its rows use."""
        found = []
        for name in dict.fromkeys(row.protocol for row in self.rows if row.role == role):
            some, protocol = next(row for row in self.rows if row.role == role and row.protocol == name), find_protocol(name)
            suffix = "" if name == "auty2023" else f" ({name})"
            rows = [Row(f"control/{role}/{kind}{suffix}", role, {}, name, "control") for kind in ("constant", "mean map")]
            if not all(self._file(row).is_file() for row in rows):
                started, self.step = time.monotonic(), f"controls of {self.data[role]}"
                depth_range = protocol.depth_range or self.sets[role, "test"].depth_range
                progress = lambda *n: self.report("reading depths", *n)  # noqa: E731
                learned = learn_controls(self.sets[role, "train"], depth_range, self.settings.workers, progress)
                makers = learned.rows(protocol)
                test = self.sets[role, "test"]
                stored = self.features.stored(some, "test")
                source = self.features.of(some, "test") if stored else Images(test, lambda images: images, workers=self.settings.workers)
                scores = score_rows(makers, source, protocol, image_free=makers)
                for row, score, numbers in zip(rows, scores.values(), (1, learned.mean_map.numel()), strict=True):
                    minutes = (time.monotonic() - started) / 60
                    RowResult.of(row, self.seeds[:1], [score], numbers, minutes).write(self._file(row))
            found += [RowResult.read(self._file(row)) for row in rows]
        return found

    def _run(self, row: Row, seeds: Sequence[int]) -> tuple[list[Scores], int]:
        """Scores of a row, seed by seed, and how many numbers one run trains."""
        precision, workers = self.settings.precision, self.settings.workers
        if self.settings.from_images(row):  # each run has a trunk of its own
            scores = []
            for seed in seeds:
                model = self._adapted(row, seed)
                source = Images(self.sets[row.role, "test"], image_encoder(model, precision), workers=workers)
                scores.append(self._scores(row, {str(seed): token_row(model)}, source)[0])
            return scores, _trained(model) if row.learns or row.source else 0
        models: list[DepthTokens | LinearHead]
        if row.source is not None:
            models = [self._borrowed(row, seed) for seed in seeds]
        else:
            models = [self._model(row, seed) for seed in seeds]
            if row.kind == "linear head":
                models = [LinearHead(model) for model in models if isinstance(model, DepthTokens)]
            if row.learns:
                self._learn(row, seeds, models)
        rows = {str(seed): token_row(model) for seed, model in zip(seeds, models, strict=True)}
        return self._scores(row, rows, self.features.of(row, "test")), _trained(models[0]) if row.learns or row.source else 0

    def _scores(self, row: Row, rows: dict[str, Any], source: Images | Stored) -> list[Scores]:
        return list(score_rows(rows, source, row.protocol, progress=lambda *n: self.report("scoring", *n)).values())

    def _model(self, row: Row, seed: int, **changes: Any) -> DepthTokens:
        data = self.sets[row.role, "train"]
        settings = {"depth_range": data.depth_range, "predict_side": data.image_size(0)[0], "seed": seed, **row.settings, **changes}
        return DepthTokens(self.clip, **settings)

    def _learn(self, row: Row, seeds: Sequence[int], models: Sequence[DepthTokens | LinearHead]) -> None:
        settings = self.settings
        steps = settings.steps_for(len(self.sets[row.role, "train"]))
        learners = [Learner(model, steps, lr=settings.lr) for model in models]
        fit(learners, self.features.of(row, "train"), batch_size=settings.batch_size, progress=lambda *n: self.report("learning", *n))
        for seed, model in zip(seeds, models, strict=True):
            if isinstance(model, DepthTokens):
                model.provenance = {"protocol": row.protocol, "training": {**self.facts, "row": row.name}}
                model.save(self._tokens(row, seed))
            else:
                write(self._tokens(row, seed), dict(model.trainable()), {"linear_head": model.settings})

    def _borrowed(self, row: Row, seed: int) -> DepthTokens:
        """Tokens of another data set's row, over this data's range, or with their own bins in metres."""
        lender = next(other for other in self.rows if other.name == row.source)
        saved = DepthTokens.load(self._tokens(lender, seed), self.clip)
        changes = {} if row.rescaled else {"depth_range": saved.depth_range}
        model = self._model(row, seed, batchnorm=saved.settings["batchnorm"], **changes)
        restore_tensors(model, model_tensors(saved), self._tokens(lender, seed))
        return model

    def _adapted(self, row: Row, seed: int) -> DepthTokens:
        """A model whose BatchNorm has followed the training images: trained as released, or led over them once, learning nothing."""
        settings = self.settings
        if row.learns:
            out = self.out / "runs" / slug(row.name) / f"seed-{seed}"
            experiment = Experiment(
                self.data[row.role], settings.clip, settings.weights, batchnorm="adapt", seed=seed, lr=settings.lr,
                epochs=settings.epochs, batch_size=settings.batch_size, workers=settings.workers, device=settings.device,
                precision=settings.precision, protocol=row.protocol, out=str(out), **row.settings,
            )  # fmt: skip
            resume = (out / CONFIG).is_file()
            result = train(experiment, resume, self.clip, lambda step: self.report(f"seed {seed}", step.step, step.steps))
            if result.interrupted:
                raise KeyboardInterrupt
            result.model.save(self._tokens(row, seed))
            return result.model
        if row.source is not None:
            return self._borrowed(row, seed)
        model = self._model(row, seed, batchnorm="adapt").train()
        data = open_dataset(self.data[row.role], "train", augment=True, seed=seed)
        views = Images(data, image_encoder(model, settings.precision), workers=settings.workers)
        for done, _ in enumerate(views.training(0, epoch_order(len(data), seed, 0), settings.batch_size), 1):
            self.report("adapting", min(done * settings.batch_size, len(data)), len(data))
        return model.eval()

    def _file(self, row: Row) -> Path:
        return self.out / "rows" / f"{slug(row.name)}.json"

    def _tokens(self, row: Row, seed: int) -> Path:
        return self.out / "tokens" / f"{slug(row.name)}-seed{seed}.safetensors"


def _of(clip: FrozenCLIP, row: Row) -> Row:
    """A row for this CLIP: where it was trained with ImageNet's normalisation, asking for its own changes nothing."""
    if row.settings.get("normalisation") == "clip" and trained_like_imagenet(clip.visual):
        return replace(row, settings={key: value for key, value in row.settings.items() if key != "normalisation"})
    return row


def _trained(model: DepthTokens | LinearHead) -> int:
    return sum(parameter.numel() for parameter in model.trainable().values())
