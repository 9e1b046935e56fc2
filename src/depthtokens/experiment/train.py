"""Training: learn the tokens, keep CLIP as it is, survive being stopped at any moment."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..clip.device import find_device
from ..clip.load import FrozenCLIP, load_clip
from ..depth.checkpoint import read, restore, write
from ..depth.model import DepthTokens
from ..depth.protocol import find_protocol
from ..depth.settings import Provenance
from ..errors import TrainingError, UsageError
from ..features.store import FeatureStore
from ..features.views import Views
from ..files import atomic
from ..progress import Notify, Progress, silent
from .config import Experiment
from .learn import Learner, learn
from .learn import Step as Stepped
from .source import Data, NamedData, Reading, Source, Stored, check_sizes, open_source

TOKENS, STATE, CONFIG, LOG = "tokens.safetensors", "checkpoint.safetensors", "experiment.toml", "log.jsonl"
_MAY_CHANGE = {"workers", "device", "out", "tensorboard"}  # settings that a resumed run may have otherwise


@dataclass(frozen=True)
class Record:
    """One line of log.jsonl: where a run stands.

    Attributes:
        epoch: counted from 1.
        step: counted from 1 to `steps`, over all epochs.
        loss: of this step, NaN where its batch had no truth.
        lr: of this step.
        images_per_second: since the run began or went on.
        seconds_left: at that speed.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float

    def in_words(self, epochs: int) -> str:
        """The same for a person."""
        left = f"{self.seconds_left / 60:.0f} min left" if self.seconds_left > 90 else f"{self.seconds_left:.0f} s left"
        return f"epoch {self.epoch}/{epochs}  loss {self.loss:.3f}  {self.images_per_second:.1f} images/s  {left}"

    def to_line(self) -> str:
        """As JSON."""
        return json.dumps({key: None if value != value else value for key, value in asdict(self).items()}) + "\n"


@dataclass(frozen=True)
class TrainResult:
    """A finished (or interrupted) run.

    Attributes:
        model: with the tokens as they are.
        tokens: their file.
        epoch_losses: mean loss of each epoch.
        steps: done so far.
        skipped: images seen without any truth.
        interrupted: whether Ctrl-C ended it.
    """

    model: DepthTokens
    tokens: Path
    epoch_losses: list[float]
    steps: int
    skipped: int
    interrupted: bool


def train(
    experiment: Experiment,
    resume: bool = False,
    clip: FrozenCLIP | None = None,
    progress: Progress = silent,
    notify: Notify = silent,
) -> TrainResult:
    """Learn the tokens of an experiment and write them to its `out` folder, with a checkpoint every epoch (released recipe).

    Ctrl-C saves and returns.

    Args:
        experiment: all settings.
        resume: go on from the checkpoint in `out`; on the same machine's CPU the tokens come out as if the run had never stopped, bit for
            bit.
        clip: one that is loaded already.
        progress: called after every step, and as images are read for stored features.
        notify: called with a line before patch features are stored.

    Raises:
        UsageError: where `out` exists (or, resuming, differs in its settings).
        TrainingError: where nothing is to be learned or the loss stops being a number (the last good checkpoint stays).
        DataError: for a store of another CLIP or mode.
    """
    out = Path(experiment.out)
    existed = out.exists()
    if existed and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder")
    if not resume and existed and any(out.iterdir()):
        raise UsageError(f"the output folder {out} exists: choose another --out, or go on with --resume {out}")
    find_protocol(experiment.protocol)
    run = _Run(experiment, clip, find_device(experiment.device), progress, notify)
    if resume:
        run.restore(out)
        return run.go(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with atomic(out / CONFIG) as file:
            file.write(experiment.to_toml().encode())
        return run.go(out)
    finally:
        if run.step == 0:  # failed before it began: leave nothing in the way of the next try
            for path in [out / CONFIG, out / LOG, *out.glob("events.out.tfevents*")]:
                path.unlink(missing_ok=True)
            if not existed:
                out.rmdir()


def training_data(experiment: Experiment) -> tuple[Data, int]:
    """What an experiment trains on, and the shorter side in pixels of its images. Raises UsageError or DataError where it cannot."""
    if not experiment.data.startswith("store:"):
        dataset = experiment.open_dataset()
        return dataset, min(dataset.image_size(0))
    store = NamedData(experiment.data).store
    assert store is not None
    if store.split == "test":
        raise UsageError(f"{store.path} holds a test split: what is trained on it cannot be scored on it")
    if experiment.views not in (0, store.views.count):
        raise UsageError(f"{store.path} holds {store.views.count} views of each image: leave out --views {experiment.views}")
    if experiment.crop is not None:
        raise UsageError(f"{store.path} holds views as they are: leave out --crop, or give it to `depthtokens features`")
    check_sizes(store.image_sizes)
    return store, min(store.image_height, store.image_sizes[0][1])


class _Run:
    """The state of one training run."""

    def __init__(self, experiment: Experiment, clip: FrozenCLIP | None, device: torch.device, progress: Progress, notify: Notify) -> None:
        self.experiment, self.progress = experiment, progress
        data, side = training_data(experiment)
        clip = clip or load_clip(experiment.clip, experiment.weights)
        self.model = DepthTokens.of(clip, experiment.model_settings(data.depth_range, side)).to(device)
        self.steps_per_epoch = -(-len(data) // experiment.batch_size)
        self.steps = experiment.epochs * self.steps_per_epoch
        self.learner = Learner(
            self.model, self.steps, lr=experiment.lr, weight_decay=experiment.weight_decay, clip_norm=experiment.clip_norm
        )  # before anything that takes long: it knows whether there is something to learn
        kept = experiment.cache and experiment.fixed_views
        if kept and not isinstance(data, FeatureStore) and data.augment is None and data.fixed_crop is None:
            check_sizes([data.image_size(i) for i in range(len(data))])
        views = Views(experiment.views, normalisation=experiment.normalisation) if experiment.views else None
        reading = Reading(
            cache=kept, workers=experiment.workers, precision=experiment.precision, list_file=experiment.list_file,
            progress=progress, notify=notify,
        )  # fmt: skip
        self.source: Source = open_source(self.model, data, views, reading)
        self.skipped = 0
        self.losses: list[float] = []  # of the current epoch
        self.epoch_losses: list[float] = []

    @property
    def step(self) -> int:
        """Optimiser steps done (a skipped batch counts)."""
        return self.learner.done

    def go(self, out: Path) -> TrainResult:
        """Train to the end, or to Ctrl-C."""
        experiment = self.experiment
        self.model.train()
        started, first = time.perf_counter(), self.step
        with (out / LOG).open("a", encoding="utf-8") as log, _board(out, experiment.tensorboard) as board, _Interrupt() as interrupt:
            steps = learn([self.learner], self.source, batch_size=experiment.batch_size)
            while not interrupt.asked:
                lr = float(self.learner.scheduler.get_last_lr()[0])
                loss = self._take(steps)
                if loss is None:
                    break
                done, seconds = self.step - first, time.perf_counter() - started
                speed, left = done * experiment.batch_size / seconds, seconds / done * (self.steps - self.step)
                record = Record((self.step - 1) // self.steps_per_epoch + 1, self.step, self.steps, loss, lr, speed, left)
                log.write(record.to_line())
                log.flush()
                if board:
                    board.add_scalar("loss", loss, self.step)
                    board.add_scalar("lr", lr, self.step)
                self.progress("training", self.step, self.steps, record.in_words(experiment.epochs))
                if interrupt.asked or self.step % self.steps_per_epoch == 0:
                    self.save(out)
        self.model.eval()
        return TrainResult(self.model, out / TOKENS, self.epoch_losses, self.step, self.skipped, interrupt.asked)

    def _take(self, steps: Iterator[Stepped]) -> float | None:
        """One optimiser step; returns the loss, NaN for a batch without any ground truth (which is skipped), None behind the last one."""
        try:
            step = next(steps, None)
        except TrainingError as error:
            raise TrainingError(f"stopped at step {self.step + 1}, the last good checkpoint stays: {error}") from None
        if step is None:
            return None
        (loss,) = step.losses
        self.skipped += step.without_truth
        if loss == loss:
            self.losses.append(loss)
        if self.step % self.steps_per_epoch == 0:
            if not self.losses:
                raise TrainingError("no image of a whole epoch has valid depth: look at it with `depthtokens data check`")
            self.epoch_losses.append(sum(self.losses) / len(self.losses))
            self.losses = []
        return loss

    def provenance(self) -> Provenance:
        """What the token file says of this run."""
        experiment, source = self.experiment, self.source
        training: dict[str, Any] = {
            "experiment": asdict(experiment), "images": len(source.names), "steps": self.step, "epoch_losses": self.epoch_losses,
            "data": source.name, "images_without_depth": self.skipped,
        }  # fmt: skip
        if isinstance(source, Stored):  # what the views were, where the experiment does not say it
            store = source.store
            kept = {key: store.meta[key] for key in ("views", "augmentation", "seed", "precision", "dtype")}
            training["store"] = {**kept, "split": store.split, "data_fingerprint": store.data_fingerprint}
        return Provenance(experiment.protocol, training)

    def save(self, out: Path) -> None:
        """Write the token file and the checkpoint, each atomically."""
        self.model.provenance = self.provenance()
        self.model.save(out / TOKENS)
        tensors: dict[str, Tensor] = dict(self.model.state())
        for name, parameter in self.model.trainable().items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in self.learner.optimizer.state[parameter].items()}
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.learner.optimizer.param_groups]
        scheduler = {k: v for k, v in self.learner.scheduler.state_dict().items() if _is_plain(v)}
        state = {
            "step": self.step, "skipped": self.skipped, "losses": self.losses, "epoch_losses": self.epoch_losses, "groups": groups,
            "scheduler": scheduler, "experiment": asdict(self.experiment), "fingerprint": self.model.clip.fingerprint,
        }  # fmt: skip
        write(out / STATE, tensors, state)

    def restore(self, out: Path) -> None:
        """Take up the checkpoint in `out`; a run that was killed before its first one begins again."""
        if not (out / CONFIG).is_file():
            raise UsageError(f"nothing to resume in {out}: no {CONFIG} there")
        if not (out / STATE).is_file():
            _cut_log(out / LOG, 0)
            return
        tensors, state = read(out / STATE)
        now, then = asdict(self.experiment), state["experiment"]
        changed = [name for name in now if name not in _MAY_CHANGE and json.loads(json.dumps(now[name])) != then.get(name)]
        if changed:
            raise UsageError(f"cannot resume {out} with other settings: {', '.join(changed)} changed")
        if state["fingerprint"] != self.model.clip.fingerprint:
            raise UsageError(f"cannot resume {out} with another CLIP than it began with")
        restore(self.model.state(), tensors, out / STATE)
        for name, parameter in self.model.trainable().items():
            prefix = f"optimizer.{name}."
            moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            self.learner.optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()}
        for group, saved in zip(self.learner.optimizer.param_groups, state["groups"], strict=True):
            group.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
        self.learner.scheduler.load_state_dict({**self.learner.scheduler.state_dict(), **state["scheduler"]})
        self.learner.done = state["step"]
        self.skipped = state["skipped"]
        self.losses, self.epoch_losses = state["losses"], state["epoch_losses"]
        _cut_log(out / LOG, self.step)


def _cut_log(path: Path, step: int) -> None:
    """Keep the lines up to the checkpoint's step: what came after, perhaps cut in the middle of a line, is about to be done again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:step]
        with atomic(path) as file:
            file.write("".join(lines).encode())


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str | bool | list)


class _Interrupt:
    """Turns the first Ctrl-C into a request to stop after this step; the second acts as usual."""

    asked = False

    def __enter__(self) -> _Interrupt:
        self.before: Any = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def _ask(self, _signal: int, _frame: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _board(out: Path, wanted: bool) -> Iterator[Any]:
    """A TensorBoard writer, or None where it is not wanted."""
    if not wanted:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("--tensorboard needs an extra: pip install 'depthtokens[tensorboard]'") from None
    with SummaryWriter(str(out)) as writer:
        yield writer
