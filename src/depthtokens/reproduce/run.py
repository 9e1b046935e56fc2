"""Tables side by side: every row of the paper, and the effects it leaves mixed, on features that are computed once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .._version import versions
from ..clip.device import find_device
from ..clip.load import FrozenCLIP, load_clip
from ..data import open_dataset
from ..data.check import sample_truth
from ..data.dataset import DepthDataset
from ..depth.checkpoint import restore, write
from ..depth.linear import LinearHead, Trainable
from ..depth.model import DepthTokens
from ..depth.protocol import Head, Protocol, find_protocol
from ..depth.settings import Provenance
from ..errors import UsageError
from ..experiment.config import CONSTANT, MEAN_MAP, RIDGE
from ..experiment.controls import learn_controls
from ..experiment.evaluate import Scores, head_of, score_heads
from ..experiment.learn import Learner, epoch_order, fit
from ..experiment.result import Result
from ..experiment.ridge import learn_ridge
from ..experiment.source import Reading, Source, open_source
from ..experiment.subset import Subset, subset
from ..experiment.train import CONFIG, train
from ..files import atomic, locked, make_folder, sealed, unsealed, write_text
from ..progress import Notify, Progress, silent
from ..spread import Cluster, check_same, on_cluster
from .estimate import Estimate, estimate
from .features import RowFeatures
from .measured import Measured, slug
from .rows import LINEAR, Row, control_row
from .settings import Reproduction

PLAN = "plan.json"
DIGITS = 6  # of per-image figures: more than any table shows, and a third of the size


@dataclass(frozen=True)
class Reproduced:
    """A finished reproduction.

    Attributes:
        settings: what was asked.
        facts: recipe, CLIP, data and versions, for whoever repeats it.
        rows: what was measured, the controls last.
    """

    settings: Reproduction
    facts: dict[str, Any]
    rows: list[Measured]


def reproduce(settings: Reproduction, progress: Progress = silent, notify: Notify = silent, cluster: Cluster | None = None) -> Reproduced:
    """Run every row of the tables asked for; `out` keeps each as soon as it is done, so that a stopped run goes on there.

    Args:
        settings: what to run.
        progress: called with the row and what is being done for it.
        notify: called with a line before features are stored.
        cluster: whose nodes run rows, with the same figures; None for this process. Stored features are still made by this process.

    Raises:
        UsageError: for rows without data, seeds that are none, or an `out` that holds a reproduction of another version, CLIP, data or
            recipe.
        DataError: for data that cannot be read, stores that do not fit, or an `out` that another process is writing.
        DepthTokensError: where `out` cannot be written.
    """
    if not settings.data:
        raise UsageError("no data: give --data nyu:ROOT, kitti:ROOT, scenes or scenes:road")
    run = _Run(settings, progress, notify)
    run.check()  # before anything is written
    make_folder(run.out)
    with locked(run.out):
        run.begin()
        run.read()
        if cluster is not None:
            run.spread(cluster)
        rows = []
        for number, row in enumerate(run.rows):
            run.step = f"{number + 1}/{len(run.rows)} {row.name}"
            rows.append(run.measured(row))
        controls = [control for role in run.data for control in run.controls(role)]
    return Reproduced(settings, run.facts, [*rows, *controls])


def expected(settings: Reproduction, progress: Progress = silent, notify: Notify = silent) -> Estimate:
    """What a reproduction would take, none of which is run.

    Args:
        settings: what would be run.
        progress: called as data is looked at.
        notify: called with whatever in the data is worth knowing.

    Raises:
        UsageError: as `reproduce`.
        DataError: as `reproduce`.
    """
    run = _Run(settings, progress, notify)
    return estimate(settings, run.rows, run.sets, run.features.unmade(run.clip), run.model)


class Part(NamedTuple):
    """What running some seeds of a row gave.

    Attributes:
        scores: one for each seed.
        parameters: how many numbers one run trains.
        minutes: that it took.
    """

    scores: list[Scores]
    parameters: int
    minutes: float


class _Run:
    """The CLIP, the data, their stores, and the folder of finished rows."""

    def __init__(self, settings: Reproduction, progress: Progress, notify: Notify) -> None:
        self.settings, self._progress = settings, progress
        self.step = "features"
        self.seeds, self.data, self.out = settings.seed_list(), settings.by_role(), Path(settings.out)
        self.device = find_device(settings.device)
        self.lists = settings.lists()
        self.sets = {(role, split): self._open(role, split) for role in self.data for split in ("train", "test")}
        self.clip = load_clip(settings.clip, settings.weights)
        self.rows = [_of(self.clip, row) for row in settings.rows() if not row.images or row.images < len(self.sets[row.role, "train"])]
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
            "versions": versions("torch", "open_clip"),
            "in_painted": [role for role in self.data if sample_truth(self.sets[role, "test"]).in_painted],
        }
        for (role, split), data in self.sets.items():
            for line in data.warnings:
                notify(f"warning: {self.data[role]} {split}: {line}")
        self.features = RowFeatures(settings, self.rows, self.sets, partial(self._open, augment=True), self.progress, notify)
        self.features.take(settings.stores, self.clip)
        self.clip.to(self.device)

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        """Say how far the present step is."""
        self._progress(f"{self.step}: {label}", done, total, note)

    def check(self) -> dict[str, Any]:
        """What plan.json is to hold. Raises UsageError where the folder holds more than what a run leaves that was killed before it."""
        path, now = self.out / PLAN, json.loads(json.dumps(self.facts))
        if path.is_file():
            try:
                then = unsealed(path.read_bytes(), must=False)
                other = [key for key in ("recipe", "clip", "versions") if now[key] != then[key]]
                other += [key for key in now["data"].keys() & then["data"].keys() if now["data"][key] != then["data"][key]]
                if not other and then.keys() != now.keys():
                    raise KeyError
                now["data"] = then["data"] | now["data"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{path} is damaged: choose another --out") from error
            if other:
                raise UsageError(f"{self.out} holds a reproduction with other {', '.join(other)} than asked for: choose another --out")
        elif self.out.is_file() or (self.out.is_dir() and any(not path.name.startswith(".") for path in self.out.iterdir())):
            raise UsageError(f"the output folder {self.out} holds other things: choose another --out")
        return now

    def begin(self) -> None:
        """Say in the folder what is being done there, before anything else is put into it."""
        values = self.check()  # again: another run may have begun meanwhile
        write_text(self.out / PLAN, json.dumps(sealed(values), indent=1))
        for folder in ("rows", "tokens"):
            (self.out / folder).mkdir(exist_ok=True)

    def read(self) -> None:
        """Have all stored features that rows still to be run will need, so that no row's minutes hold them."""
        for row in self.rows:
            if self._twin(row) is None and not self.settings.adapts(row):
                model = self.model(row, self.seeds[0])
                for split in ("train", "test") if row.shown_training and not self.settings.fresh(row) else ("test",):
                    self.features.of(row, split, model)

    def measured(self, row: Row) -> Measured:
        """Run a row, or take it from the folder, where a row of other name may be the same."""
        path, twin = self._file(row), self._twin(row)
        if twin is None:
            self._keep(row, [self.run(row, self._seeds(row))])
        elif twin is not row:
            for own, lent in zip(self._owed(row), self._owed(twin), strict=True):
                with atomic(own) as file:
                    file.write(lent.read_bytes())
            replace(Measured.read(self._file(twin), twin), row=row).write(path)  # last, as above: it says that all is there
        return Measured.read(path, row)

    def run(self, row: Row, seeds: Sequence[int]) -> Part:
        """Run some seeds of a row."""
        started = time.monotonic()
        scores, parameters = self._run(row, seeds)
        return Part(scores, parameters, (time.monotonic() - started) / 60)

    def _keep(self, row: Row, parts: Sequence[Part]) -> None:
        """Write a row, all seeds of which have been run."""
        scores, minutes = [score for part in parts for score in part.scores], sum(part.minutes for part in parts)
        result = Result.of(scores, seeds=self._seeds(row), parameters=parts[-1].parameters, minutes=minutes, digits=DIGITS)
        Measured(row, result).write(self._file(row))

    def _seeds(self, row: Row) -> list[int]:
        """The seeds that a row is run with."""
        return self.seeds if row.seeded else self.seeds[:1]

    def spread(self, cluster: Cluster) -> None:
        """Run on a cluster what is still to be run, but once of rows that are the same, and those that borrow tokens after the others."""
        todo: list[Row] = []
        for row in self.rows:
            if self._twin(row) is None and not any(row.same(other) for other in todo):
                todo.append(row)
        if not todo:
            return
        stores = tuple(str(store.path.absolute()) for store in self.features.stores())
        settings = replace(self.settings, stores=stores)
        with on_cluster(cluster, _Running(settings, self._seen()), self.out) as do:
            self.step, parts = "rows", 0
            for rows in ([row for row in todo if not row.source], [row for row in todo if row.source]):
                found: dict[str, dict[tuple[int, ...], Part]] = {row.name: {} for row in rows}
                pieces = [(row, seeds) for row in sorted(rows, key=self._cost, reverse=True) for seeds in self._apart(row)]
                for (row, seeds), part in do(pieces):
                    found[row.name][seeds] = part
                    if len(found[row.name]) == len(self._apart(row)):
                        self._keep(row, [found[row.name][some] for some in self._apart(row)])
                        parts += 1
                        self.progress(row.name, parts, len(todo))
                for row in self.rows:
                    if self._twin(row) is not None:
                        self.measured(row)  # tokens that rows of the next round borrow

    def _apart(self, row: Row) -> list[tuple[int, ...]]:
        """Which seeds of a row are a piece of work: all that train side by side, and each that has an image trunk of its own."""
        seeds = self._seeds(row)
        return [(seed,) for seed in seeds] if self.settings.from_images(row) else [tuple(seeds)]

    def _cost(self, row: Row) -> tuple[bool, bool, int]:
        """Rows that take longer come later in this order."""
        return self.settings.from_images(row), row.learns, row.model.words.count

    def _seen(self) -> dict[str, Any]:
        """What a node must see as well."""
        data = {f"{self.data[role]} {split}": self.facts["data"][f"{role} {split}"] for role, split in self.sets}
        return {"CLIP": self.facts["clip"], **data, **{name: self.facts[name] for name in ("recipe", "versions")}}

    def _twin(self, row: Row) -> Row | None:
        """A row that is the same run and finished, with its tokens: at best the row itself; None where it is still to be run."""
        return next((other for other in (row, *self.rows) if other.same(row) and self._done(other)), None)

    def _done(self, row: Row) -> bool:
        """Whether everything that a row owes is there."""
        return all(path.is_file() for path in (self._file(row), *self._owed(row)))

    def _owed(self, row: Row) -> list[Path]:
        """The token files of a row, one for each seed; none of a row that learns nothing."""
        return [self._tokens(row, seed) for seed in self.seeds] if row.learns else []

    def controls(self, role: str) -> list[Measured]:
        """A constant depth and the mean map of a data set's training split, by each protocol that its rows use."""
        found = []
        for name in dict.fromkeys(row.protocol for row in self.rows if row.role == role):
            some, protocol = next(row for row in self.rows if row.role == role and row.protocol == name), find_protocol(name)
            rows = [control_row(role, kind, name) for kind in (CONSTANT, MEAN_MAP)]
            if not all(self._file(row).is_file() for row in rows):
                started, self.step = time.monotonic(), f"controls of {self.data[role]}"
                learned = learn_controls(self.sets[role, "train"], self._range(role, protocol), self.settings.workers, self.progress)
                if self.features.stored(some, "test"):
                    source = self.features.of(some, "test", self.model(some, self.seeds[0]))
                else:
                    source = open_source(None, self.sets[role, "test"], None, Reading(workers=self.settings.workers))
                scores = score_heads({}, source, protocol, learned, self.progress)
                for row in rows:
                    minutes = (time.monotonic() - started) / 60
                    numbers = learned.parameters[row.kind]
                    result = Result.of([scores[row.kind]], seeds=self.seeds[:1], parameters=numbers, minutes=minutes, digits=DIGITS)
                    Measured(row, result).write(self._file(row))
            found += [Measured.read(self._file(row), row) for row in rows]
        return found

    def _run(self, row: Row, seeds: Sequence[int]) -> tuple[list[Scores], int]:
        """Scores of a row, seed by seed, and how many numbers one run trains."""
        if self.settings.from_images(row):
            scores = []
            for seed in seeds:
                model = self._from_images(row, seed)
                if self.settings.adapts(row):
                    source = open_source(model, self.sets[row.role, "test"], None, self._reading())
                else:
                    source = self.features.of(row, "test", model)
                scores += self._scores(row, {str(seed): head_of(model)}, source)
            return scores, _trained(model) if row.learns or row.source else 0
        if row.kind == MEAN_MAP:
            return self._mean_maps(row, seeds)
        models: list[Trainable] = [self._borrowed(row, seed) if row.source else self.model(row, seed) for seed in seeds]
        if row.kind == LINEAR:
            models = [LinearHead(model) for model in models if isinstance(model, DepthTokens)]
        if row.kind == RIDGE:
            training = self.features.of(row, "train", models[0])
            ridges = {str(seed): learn_ridge(training, self._drawn(row, seed), seed, self.progress) for seed in seeds}
            return self._scores(row, ridges, self.features.of(row, "test", models[0])), ridges[str(seeds[0])].parameters
        if row.learns:
            self._learn(row, seeds, models, self.features.of(row, "train", models[0]))
        heads = {str(seed): head_of(model) for seed, model in zip(seeds, models, strict=True)}
        return self._scores(row, heads, self.features.of(row, "test", models[0])), _trained(models[0]) if row.learns or row.source else 0

    def _mean_maps(self, row: Row, seeds: Sequence[int]) -> tuple[list[Scores], int]:
        """The same for the mean maps of the training images that each seed draws."""
        source, depth_range = self.features.of(row, "test", self.model(row, seeds[0])), self._range(row.role, find_protocol(row.protocol))
        scores = []
        for seed in seeds:
            images = self._drawn(row, seed)
            controls = learn_controls(self.sets[row.role, "train"], depth_range, self.settings.workers, self.progress, images)
            scores.append(score_heads({}, source, row.protocol, controls, self.progress)[MEAN_MAP])
        return scores, controls.parameters[MEAN_MAP]

    def _range(self, role: str, protocol: Protocol) -> tuple[float, float]:
        """(lo, hi) metres, of the depths that count."""
        return protocol.depth_range or self.sets[role, "test"].depth_range

    def _drawn(self, row: Row, seed: int) -> list[int] | None:
        """Which training images a row learns from; None for all."""
        return None if row.images is None else subset(len(self.sets[row.role, "train"]), row.images, seed)

    def _scores(self, row: Row, heads: Mapping[str, Head], source: Source) -> list[Scores]:
        return list(score_heads(heads, source, row.protocol, progress=self.progress).values())

    def model(self, row: Row, seed: int, batchnorm: str = "frozen", depth_range: tuple[float, float] | None = None) -> DepthTokens:
        """A row's model for one seed, on its training data."""
        data = self.sets[row.role, "train"]
        options = replace(row.model, seed=seed, batchnorm=batchnorm)
        return DepthTokens.of(self.clip, options.on(depth_range or data.depth_range, min(data.image_size(0))))

    def _learn(self, row: Row, seeds: Sequence[int], models: Sequence[Trainable], source: Source) -> None:
        settings = self.settings
        steps = settings.steps_for(len(self.sets[row.role, "train"]))
        learners = [Learner(model, steps, lr=settings.lr, objective=row.objective) for model in models]
        if row.images is not None:
            source = Subset(source, row.images)
        fit(learners, source, batch_size=settings.batch_size, progress=self.progress)
        for seed, model in zip(seeds, models, strict=True):
            if isinstance(model, DepthTokens):
                model.provenance = Provenance(row.protocol, {**self.facts, "row": row.name})
                model.save(self._tokens(row, seed))
            else:
                write(self._tokens(row, seed), dict(model.trainable()), {"linear_head": {**model.settings.written(), "depth": LINEAR}})

    def _borrowed(self, row: Row, seed: int) -> DepthTokens:
        """Tokens of another data set's row, over this data's range, or with their own bins in metres."""
        lender = next(other for other in self.rows if other.name == row.source)
        saved = DepthTokens.load(self._tokens(lender, seed), self.clip)
        model = self.model(row, seed, saved.settings.batchnorm, None if row.rescaled else saved.depth_range)
        restore(model.state(), saved.state(), self._tokens(lender, seed))
        return model

    def _from_images(self, row: Row, seed: int) -> Trainable:
        """A model that has seen the training images themselves: trained, with new views in every epoch, or led over them once."""
        settings = self.settings
        if row.kind == LINEAR:
            head = LinearHead(self.model(row, seed))
            self._learn(row, [seed], [head], self._new_views(row, seed, head))
            return head
        if row.learns:
            out = self.out / "runs" / slug(row.name) / f"seed-{seed}"
            experiment = row.experiment(
                self.data[row.role], as_released=settings.as_released, depth_range=None, clip=settings.clip, weights=settings.weights,
                seed=seed, nyu_depth=settings.nyu_depth, list_file=self.lists.get((row.role, "train")),
                lr=settings.lr, epochs=settings.epochs, batch_size=settings.batch_size, workers=settings.workers,
                device=settings.device, precision=settings.precision, out=str(out),
            )  # fmt: skip
            run = train(experiment, (out / CONFIG).is_file(), self.clip, self.progress)
            if run.interrupted:
                raise KeyboardInterrupt(run.stopped_by)
            run.model.save(self._tokens(row, seed))
            return run.model
        if row.source is not None:
            return self._borrowed(row, seed)
        model = self.model(row, seed, "adapt").train()
        views = self._new_views(row, seed, model)
        images = len(views.names)
        for done, _ in enumerate(views.training(0, epoch_order(images, seed, 0), settings.batch_size), 1):
            self.progress("adapting", min(done * settings.batch_size, images), images)
        return model.eval()

    def _new_views(self, row: Row, seed: int, model: Trainable) -> Source:
        """A row's training images, in new random views of that seed in every epoch."""
        return open_source(model, self._open(row.role, "train", augment=True, seed=seed), None, self._reading())

    def _reading(self) -> Reading:
        """How features are computed that are not kept."""
        return Reading(workers=self.settings.workers, precision=self.settings.precision)

    def _open(self, role: str, split: str, *, augment: bool = False, seed: int = 42) -> DepthDataset:
        """A split of a role's data set, by the list file that was given for it, if any."""
        depth = self.settings.nyu_depth if self.data[role].endswith(".mat") else None
        return open_dataset(
            self.data[role], split, list_file=self.lists.get((role, split)), augment=augment, seed=seed, nyu_depth=depth
        )  # fmt: skip

    def _file(self, row: Row) -> Path:
        return self.out / "rows" / f"{slug(row.name)}.json"

    def _tokens(self, row: Row, seed: int) -> Path:
        return self.out / "tokens" / f"{slug(row.name)}-seed{seed}.safetensors"


@dataclass(frozen=True)
class _Running:
    """The recipe of a worker that runs rows.

    Attributes:
        settings: with the stores of features that rows read.
        seen: what the process that spreads the work sees.
    """

    settings: Reproduction
    seen: dict[str, Any]

    def __call__(self) -> Callable[[tuple[Row, tuple[int, ...]]], Part]:
        run = _Run(self.settings, silent, silent)
        check_same(self.seen, run._seen())
        return lambda piece: run.run(*piece)


def _of(clip: FrozenCLIP, row: Row) -> Row:
    """A row for this CLIP: where it was trained with ImageNet's normalisation, asking for its own changes nothing."""
    if row.model.normalisation == "clip" and clip.image.trained_like_imagenet:
        return replace(row, options=replace(row.model, normalisation="imagenet"))
    return row


def _trained(model: Trainable) -> int:
    return sum(parameter.numel() for parameter in model.trainable().values())
