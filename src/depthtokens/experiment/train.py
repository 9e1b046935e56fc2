"""Training: learn the tokens, keep CLIP as it is, survive being stopped at any moment."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from ..clip.load import FrozenCLIP, load_clip
from ..clip.device import autocast
from ..data.dataset import DepthDataset
from ..depth.checkpoint import model_tensors, read, restore_tensors, write
from ..depth.loss import MIN_TRUTH
from ..depth.model import DepthTokens
from ..depth.protocol import find_protocol
from ..errors import TrainingError, UsageError
from ..features.cache import cached
from ..features.views import Views
from ..features.store import FeatureStore, Progress
from ..files import atomic
from .config import Experiment
from ..clip.device import find_device
from .evaluate import image_encoder, source_for
from .learn import Learner, TextPass, epoch_order, update
from .source import Batch, Images, Source, check_sizes, training_store

TOKENS, STATE, CONFIG, LOG = "tokens.safetensors", "checkpoint.safetensors", "experiment.toml", "log.jsonl"
_MAY_CHANGE = {"workers", "device", "out", "tensorboard"}  # settings that a resumed run may have otherwise


@dataclass(frozen=True)
class Step:
    """Where a run stands: step counts from 1 to steps over all epochs; loss of this step; images per second and seconds left so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class TrainResult:
    """A finished (or interrupted) run: its model, the token file, mean loss of each epoch, and images seen without any truth."""

    model: DepthTokens
    tokens: Path
    epoch_losses: list[float]
    skipped: int
    interrupted: bool


def train(
    experiment: Experiment,
    resume: bool = False,
    clip: FrozenCLIP | None = None,
    on_step: Callable[[Step], None] | None = None,
    told: Callable[[str], None] | None = None,
    on_image: Progress | None = None,
) -> TrainResult:
    """Learn the tokens of an experiment and write them to its `out` folder, with a checkpoint every epoch (released recipe).

    resume: go on from the checkpoint in `out`; on the same machine's CPU the tokens come out as if the run had never stopped, bit for bit.
    clip: one that is loaded already. told: called with a line before patch features are stored, on_image: as they are (images done, all).
    Ctrl-C saves and returns. Raises UsageError where `out` exists (or, resuming, differs in its settings), TrainingError where nothing is
    to be learned or the loss stops being a number (the last good checkpoint stays), DataError for a store of another CLIP or mode.
    """
    out = Path(experiment.out)
    existed = out.exists()
    if existed and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder")
    if not resume and existed and any(out.iterdir()):
        raise UsageError(f"the output folder {out} exists: choose another --out, or go on with --resume {out}")
    find_protocol(experiment.protocol)
    device = find_device(experiment.device)
    autocast(device, experiment.precision)
    run = _Run(experiment, clip, device, told, on_image)
    if resume:
        run.restore(out)
        return run.go(out, on_step)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with atomic(out / CONFIG) as file:
            file.write(experiment.to_toml().encode())
        return run.go(out, on_step)
    finally:
        if run.step == 0:  # failed before it began: leave nothing in the way of the next try
            for path in [out / CONFIG, out / LOG, *out.glob("events.out.tfevents*")]:
                path.unlink(missing_ok=True)
            if not existed:
                out.rmdir()


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        experiment: Experiment,
        clip: FrozenCLIP | None,
        device: torch.device,
        told: Callable[[str], None] | None,
        on_image: Progress | None,
    ) -> None:
        self.experiment = experiment
        data: DepthDataset | FeatureStore
        if experiment.data.startswith("store:"):
            data = training_store(experiment)
            height = data.image_height
        else:
            data = experiment.make_dataset()
            height = data.image_size(0)[0]
        clip = clip or load_clip(experiment.clip, experiment.weights)
        self.model = experiment.make_model(clip, data.depth_range, predict_side=height).to(device)
        self.images = len(data)
        self.steps_per_epoch = -(-self.images // experiment.batch_size)
        steps = experiment.epochs * self.steps_per_epoch
        self.learner = Learner(
            self.model, steps, lr=experiment.lr, weight_decay=experiment.weight_decay, clip_norm=experiment.clip_norm
        )  # before anything that takes long: it knows whether there is something to learn
        self.texts = TextPass([self.model])
        fixed = experiment.views >= 1 and experiment.batchnorm == "frozen"
        if not isinstance(data, FeatureStore) and fixed and experiment.cache:
            if data.augment is None and data.fixed_crop is None:
                check_sizes([data.image_size(i) for i in range(len(data))])
            views = Views(experiment.views, normalisation=experiment.normalisation)
            data = cached(
                clip, data, views, [experiment.dense], told=told, workers=experiment.workers, device=device,
                precision=experiment.precision, list_file=experiment.list_file, progress=on_image,
            )  # fmt: skip
        self.source: Source
        self.read_from: dict[str, Any] = {}  # what the views were, where the experiment does not say it
        if isinstance(data, FeatureStore):
            self.source = source_for(self.model, data)
            kept = {key: data.meta[key] for key in ("views", "augmentation", "seed", "precision", "dtype")}
            self.read_from = {"store": {**kept, "split": data.split, "data_fingerprint": data.data_fingerprint}}
        else:
            encode = image_encoder(self.model, experiment.precision)
            self.source = Images(data, encode, views=experiment.views, workers=experiment.workers)
        self.step = 0  # optimiser steps done (a skipped batch counts)
        self.skipped = 0
        self.losses: list[float] = []  # of the current epoch
        self.epoch_losses: list[float] = []

    def go(self, out: Path, on_step: Callable[[Step], None] | None) -> TrainResult:
        experiment, steps = self.experiment, self.experiment.epochs * self.steps_per_epoch
        self.model.train()
        started, first = time.perf_counter(), self.step
        with (out / LOG).open("a", encoding="utf-8") as log, _board(out, experiment.tensorboard) as board, _Interrupt() as interrupt:
            while self.step < steps and not interrupt.asked:
                epoch = self.step // self.steps_per_epoch
                for batch in self._batches(epoch, start=self.step % self.steps_per_epoch):
                    lr = float(self.learner.scheduler.get_last_lr()[0])
                    loss = self._update(batch)
                    seconds = time.perf_counter() - started
                    done = self.step - first
                    speed, left = done * experiment.batch_size / seconds, seconds / done * (steps - self.step)
                    report = Step(epoch + 1, self.step, steps, loss, lr, speed, left)
                    _write_line(log, report)
                    if board:
                        board.add_scalar("loss", loss, self.step)
                        board.add_scalar("lr", lr, self.step)
                    if on_step:
                        on_step(report)
                    if interrupt.asked:
                        break
                self.save(out)
        self.model.eval()
        return TrainResult(self.model, out / TOKENS, self.epoch_losses, self.skipped, interrupt.asked)

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on; order and views depend on seed, epoch and index only."""
        size = self.experiment.batch_size
        return self.source.training(epoch, epoch_order(self.images, self.experiment.seed, epoch)[start * size :], size)

    def _update(self, batch: Batch) -> float:
        """One optimiser step; returns the loss, NaN for a batch without any ground truth (which is skipped)."""
        self.skipped += int((batch.truth.flatten(1).amax(dim=1) <= MIN_TRUTH).sum())
        try:
            (value,) = update([self.learner], self.texts, [batch])
        except TrainingError as error:
            raise TrainingError(f"stopped at step {self.step + 1}, the last good checkpoint stays: {error}") from None
        self.step += 1
        if value == value:
            self.losses.append(value)
        if self.step % self.steps_per_epoch == 0:
            if not self.losses:
                raise TrainingError("no image of a whole epoch has valid depth: look at it with `depthtokens data check`")
            self.epoch_losses.append(sum(self.losses) / len(self.losses))
            self.losses = []
        return value

    def save(self, out: Path) -> None:
        """Write the token file and the checkpoint, each atomically."""
        experiment = self.experiment
        self.model.provenance = {
            "protocol": experiment.protocol,
            "training": {
                "experiment": asdict(experiment), "images": self.images, "steps": self.step, "epoch_losses": self.epoch_losses,
                "data": self.source.name, "images_without_depth": self.skipped, **self.read_from,
            },
        }  # fmt: skip
        self.model.save(out / TOKENS)
        tensors: dict[str, Tensor] = dict(model_tensors(self.model))
        for name, parameter in self.model.trainable().items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in self.learner.optimizer.state[parameter].items()}
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.learner.optimizer.param_groups]
        scheduler = {k: v for k, v in self.learner.scheduler.state_dict().items() if _is_plain(v)}
        state = {
            "step": self.step, "skipped": self.skipped, "losses": self.losses, "epoch_losses": self.epoch_losses, "groups": groups,
            "scheduler": scheduler, "experiment": asdict(experiment), "fingerprint": self.model.clip.fingerprint,
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
        restore_tensors(self.model, tensors, out / STATE)
        for name, parameter in self.model.trainable().items():
            prefix = f"optimizer.{name}."
            moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            self.learner.optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()}
        for group, saved in zip(self.learner.optimizer.param_groups, state["groups"], strict=True):
            group.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
        self.learner.scheduler.load_state_dict({**self.learner.scheduler.state_dict(), **state["scheduler"]})
        self.step = self.learner.done = state["step"]
        self.skipped = state["skipped"]
        self.losses, self.epoch_losses = state["losses"], state["epoch_losses"]
        _cut_log(out / LOG, self.step)


def _write_line(log: TextIO, report: Step) -> None:
    log.write(json.dumps({key: None if value != value else value for key, value in asdict(report).items()}) + "\n")
    log.flush()


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
