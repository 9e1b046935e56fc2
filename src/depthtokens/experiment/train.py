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
from ..clip.precision import autocast
from ..data.dataset import DepthDataset
from ..data.loader import batches
from ..data.sample import Sample
from ..depth.checkpoint import model_tensors, read, restore_tensors, write
from ..depth.loss import MIN_TRUTH
from ..depth.model import DepthTokens
from ..depth.protocol import find_protocol
from ..errors import TrainingError, UsageError
from ..files import atomic
from .config import Experiment
from .device import find_device
from .optimizer import make_optimizer, update

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
    experiment: Experiment, resume: bool = False, clip: FrozenCLIP | None = None, on_step: Callable[[Step], None] | None = None
) -> TrainResult:
    """Learn the tokens of an experiment and write them to its `out` folder, with a checkpoint every epoch (released recipe).

    resume: go on from the checkpoint in `out`; on the same machine's CPU the tokens come out as if the run had never stopped, bit for bit.
    clip: one that is loaded already. Ctrl-C saves and returns. Raises UsageError where `out` exists (or, resuming, differs in its
    settings), TrainingError where nothing is to be learned or the loss stops being a number (the last good checkpoint stays).
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
    dataset = experiment.make_dataset("train", augment=experiment.augment)
    run = _Run(experiment, dataset, clip or load_clip(experiment.clip, experiment.weights), device)
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

    def __init__(self, experiment: Experiment, dataset: DepthDataset, clip: FrozenCLIP, device: torch.device) -> None:
        self.experiment, self.dataset, self.device = experiment, dataset, device
        self.model = experiment.make_model(clip, dataset.depth_range, predict_side=dataset.image_size(0)[0]).to(device)
        self.steps_per_epoch = -(-len(dataset) // experiment.batch_size)
        steps = experiment.epochs * self.steps_per_epoch
        self.optimizer, self.scheduler = make_optimizer(self.model, steps, experiment.lr, experiment.weight_decay)
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
                    lr = float(self.scheduler.get_last_lr()[0])
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

    def _batches(self, epoch: int, start: int) -> Iterator[Sample]:
        """The batches of an epoch from number `start` on; order and augmentation depend on seed, epoch and index only."""
        experiment = self.experiment
        self.dataset.epoch = epoch
        order = torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(experiment.seed + epoch)).tolist()
        for samples in batches(self.dataset, order[start * experiment.batch_size :], experiment.batch_size, experiment.workers):
            yield _collate(samples)

    def _update(self, batch: Sample) -> float:
        """One optimiser step; returns the loss, NaN for a batch without any ground truth (which is skipped)."""
        images, target = batch.image.to(self.device), batch.depth.to(self.device)
        empty = ~(target > MIN_TRUTH).flatten(1).any(dim=1)
        self.skipped += int(empty.sum())
        if empty.all():
            self._advance(None)
            return float("nan")
        patches = self.model.image_features(images, self.experiment.precision)
        try:
            loss = update(self.model, self.optimizer, patches, target, self.experiment.clip_norm)
        except TrainingError as error:
            raise TrainingError(f"stopped at step {self.step + 1}, the last good checkpoint stays: {error}") from None
        value = loss.item()
        self._advance(value)
        return value

    def _advance(self, loss: float | None) -> None:
        self.step += 1
        if loss is not None:
            self.losses.append(loss)
        if self.step % self.steps_per_epoch == 0:
            if not self.losses:
                raise TrainingError("no image of a whole epoch has valid depth: look at it with `depthtokens data check`")
            self.epoch_losses.append(sum(self.losses) / len(self.losses))
            self.losses = []
        if self.step < self.experiment.epochs * self.steps_per_epoch:
            self.scheduler.step()

    def save(self, out: Path) -> None:
        """Write the token file and the checkpoint, each atomically."""
        experiment = self.experiment
        self.model.provenance = {
            "protocol": experiment.protocol,
            "training": {
                "experiment": asdict(experiment), "images": len(self.dataset), "steps": self.step, "epoch_losses": self.epoch_losses,
                "data": self.dataset.name, "images_without_depth": self.skipped,
            },
        }  # fmt: skip
        self.model.save(out / TOKENS)
        tensors: dict[str, Tensor] = dict(model_tensors(self.model))
        for name, parameter in self.model.trainable().items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        scheduler = {k: v for k, v in self.scheduler.state_dict().items() if _is_plain(v)}
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
            self.optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()}
        for group, saved in zip(self.optimizer.param_groups, state["groups"], strict=True):
            group.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), **state["scheduler"]})
        self.step, self.skipped = state["step"], state["skipped"]
        self.losses, self.epoch_losses = state["losses"], state["epoch_losses"]
        _cut_log(out / LOG, self.step)


def _collate(samples: list[Sample]) -> Sample:
    shapes = {tuple(sample.image.shape[1:]) for sample in samples}
    if len(shapes) > 1:
        raise UsageError(
            f"training images differ in size ({', '.join(f'{h}x{w}' for h, w in sorted(shapes)[:3])}): give --crop HEIGHT WIDTH"
        )
    return Sample(torch.stack([s.image for s in samples]), torch.stack([s.depth for s in samples]), samples[0].index)


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
