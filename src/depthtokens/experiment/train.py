"""Training: learn the tokens, keep CLIP as it is, survive being stopped at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO

import torch

from .._version import versions
from ..clip.device import find_device
from ..clip.load import FrozenCLIP, load_clip
from ..data import states_units
from ..data.check import remarks, sample_truth
from ..depth.checkpoint import read, restore, write
from ..depth.model import DepthTokens
from ..depth.protocol import find_protocol
from ..depth.settings import Provenance
from ..errors import DataError, TrainingError, UsageError, WeightsError
from ..features.store import FeatureStore
from ..features.views import Views
from ..files import LOCK, locked, make_folder, user_path, write_text
from ..partial import is_partial
from ..progress import Notify, Progress, silent
from .config import Experiment
from .interrupt import Interrupt
from .learn import Learner, learn, peak_share
from .learn import Step as Stepped
from .log import LOG, Record, Validated, board, cut_log
from .named import PLACE, NamedData, place_sum
from .source import Data, Reading, Source, Stored, check_sizes, open_source
from .validation import Validation, in_words

TOKENS, STATE, CONFIG = "tokens.safetensors", "checkpoint.safetensors", "experiment.toml"
_MAY_CHANGE = {
    "workers",
    "device",
    "out",
    "tensorboard",
    "epochs",
    "save_minutes",
    "validate",
}  # settings that may be others when a run is resumed; epochs may grow


@dataclass(frozen=True)
class TrainResult:
    """A finished (or interrupted) run.

    Attributes:
        model: with the tokens as training left them.
        tokens: the token file.
        epoch_losses: mean loss of each whole epoch.
        steps: number of steps done so far.
        skipped: how often an image without any truth was seen.
        stopped_by: the number of the signal that ended the run before its time, Ctrl-C or SIGTERM; None where none did.
    """

    model: DepthTokens
    tokens: Path
    epoch_losses: list[float]
    steps: int
    skipped: int
    stopped_by: int | None

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run before its time."""
        return self.stopped_by is not None


def train(
    experiment: Experiment,
    resume: bool = False,
    clip: FrozenCLIP | None = None,
    progress: Progress = silent,
    notify: Notify = silent,
    force: bool = False,
) -> TrainResult:
    """Learn the tokens of an experiment, and write them to its `out` folder.

    `out` gets a token file and a checkpoint after every epoch and every `save_minutes`, and a log with a line per step. At Ctrl-C or
    SIGTERM the run is saved and this function returns; a second one acts at once. The last tokens are the result, whatever `validate`
    logs on the way.

    Args:
        experiment: all settings.
        resume: whether to go on from the checkpoint in `out`; on the same machine's CPU the tokens come out as if the run had never
            stopped, bit for bit.
        clip: the experiment's CLIP, where it is loaded already.
        progress: called after every step, and as images are read for stored features.
        notify: called with one line before patch features are stored, and about whatever in the data is worth knowing.
        force: whether to train on depths that look out of proportion to the data's range.

    Returns:
        The run's result.

    Raises:
        UsageError: where `out` exists, or (when resuming) holds no run with these settings; and for settings that do not fit together.
        TrainingError: where there is nothing to learn, or the loss is no longer a finite number (the last good checkpoint stays).
        DataError: for data that cannot be read, a store of another CLIP or mode, or no test split where one is to be scored.

    Example:
        >>> import tempfile
        >>> from depthtokens.scenes import write_folder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = write_folder(Path(folder, "rooms"), count=2, workers=1)
        ...     settings = {"clip": "bundled", "views": 1, "cache": False, "epochs": 2, "workers": 0}
        ...     result = train(Experiment(data=f"folder:{data}", out=f"{folder}/run", **settings))
        ...     sorted(path.name for path in result.tokens.parent.iterdir() if path.suffix)
        ['checkpoint.safetensors', 'experiment.toml', 'log.jsonl', 'tokens.safetensors']
        >>> result.steps, len(result.epoch_losses)
        (2, 2)
    """
    out = user_path(experiment.out)
    existed = out.exists()
    _check_out(out, resume)
    find_protocol(experiment.protocol)
    run = _Run(experiment, clip, find_device(experiment.device), progress, notify, force)
    make_folder(out)
    with locked(out):
        _check_out(out, resume)  # another run may have begun meanwhile
        try:
            if resume:
                run.restore(out)
            else:
                write_text(out / CONFIG, run.experiment.to_toml())
            return run.go(out)
        finally:
            if not resume and run.step == 0 and (not existed or not any(out.glob("*.safetensors"))):
                _clear(out, existed)


def _check_out(out: Path, resume: bool) -> None:
    """Raise UsageError for a folder that a run cannot be written to."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder")
    if resume:
        if not (out / CONFIG).is_file():
            raise UsageError(f"nothing to resume in {out}: no {CONFIG} there")
    elif out.exists() and any(path.name != LOCK and not is_partial(path) for path in out.iterdir()):
        raise UsageError(f"the output folder {out} exists: choose another --out, or go on with --resume {out}")


def _clear(out: Path, existed: bool) -> None:
    """After a run that failed before its first step: leave nothing in the way of the next try."""
    for path in [out / CONFIG, out / LOG, out / LOCK, *out.glob("events.out.tfevents*")]:
        path.unlink(missing_ok=True)
    if not existed and out.is_dir() and not any(out.iterdir()):
        out.rmdir()


def training_data(experiment: Experiment) -> tuple[Data, int]:
    """Open what an experiment trains on.

    Args:
        experiment: whose data.

    Returns:
        The images, or the store of their features; and the shorter side of the data set's first image, pixels.

    Raises:
        UsageError: for a store of a test split, of other views than the experiment's, or of images that differ in size.
        DataError: for data that cannot be read.
    """
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


def check_truth(data: Data, notify: Notify, force: bool) -> None:
    """Say what of the ground truth does not count, and refuse a scale that cannot be right.

    Args:
        data: what is trained on; of a store nothing is looked at again.
        notify: called with what is worth knowing.
        force: go on all the same.

    Raises:
        DataError: where a sample of the depths is out of proportion to their range (unless `force`).
    """
    if isinstance(data, FeatureStore):
        return
    truth = sample_truth(data)
    for line in remarks(data, truth):
        notify(line)
    if truth.fault and not force:
        raise DataError(f"{truth.fault} (--force trains on it all the same)")


class _Run:
    """One training run: its model, its source, and how far it is.

    Args:
        experiment: all settings.
        clip: None loads the experiment's.
        device: where the model is trained.
        progress: called after every step.
        notify: called before patch features are stored.
        force: whether depths may be out of proportion.
    """

    def __init__(
        self, experiment: Experiment, clip: FrozenCLIP | None, device: torch.device, progress: Progress, notify: Notify, force: bool
    ) -> None:
        self.progress, self.notify = progress, notify
        data, side = training_data(experiment)
        check_truth(data, notify, force)
        clip = clip or load_clip(experiment.clip, experiment.weights)
        if experiment.dense is None:
            experiment = replace(experiment, dense=clip.default_dense)
        self.experiment = experiment
        self.model = DepthTokens.of(clip, experiment.model_settings(data.depth_range, side)).to(device)
        self.steps_per_epoch = -(-len(data) // experiment.batch_size)
        self.steps = experiment.epochs * self.steps_per_epoch
        self.learner = Learner(
            self.model,
            self.steps,
            lr=experiment.lr,
            weight_decay=experiment.weight_decay,
            clip_norm=experiment.clip_norm,
            objective=experiment.objective,
        )  # made before anything that takes long, since it refuses a model with nothing to learn
        kept = experiment.cache and experiment.fixed_views
        if kept and not isinstance(data, FeatureStore) and data.augment is None and data.fixed_crop is None:
            check_sizes([data.image_size(i) for i in range(len(data))])
        views = Views(experiment.views, normalisation=experiment.normalisation) if experiment.views else None
        reading = Reading(
            cache=kept, workers=experiment.workers, precision=experiment.precision, list_file=experiment.list_file,
            progress=progress, notify=notify,
        )  # fmt: skip
        self.validation = Validation(experiment, self.model, reading, progress) if experiment.validate else None
        self.source: Source = open_source(self.model, data, views, reading)
        read: Data = self.source.store if isinstance(self.source, Stored) else data  # a store has looked at every file already
        self.facts = {
            "images": len(data),
            "data_fingerprint": read.data_fingerprint if isinstance(read, FeatureStore) else read.fingerprint(),
            "versions": versions("torch", "open_clip"),
        }
        if (share := peak_share(self.steps)) < 0.5:
            notify(
                f"warning: a schedule of {self.steps} steps reaches {share:.0%} of the learning rate asked for: "
                "give more --epochs or a smaller --batch-size"
            )
        self.grown: list[dict[str, int]] = []  # where a resumed run was given more epochs
        self.skipped = 0
        self.saved = False
        self.losses: list[float] = []  # of the current epoch
        self.epoch_losses: list[float] = []

    @property
    def step(self) -> int:
        """Optimiser steps done (a skipped batch counts)."""
        return self.learner.done

    def go(self, out: Path) -> TrainResult:
        """Train to the end, or until a signal asks to stop."""
        experiment = self.experiment
        self.model.train()
        started, first = time.perf_counter(), self.step
        saved = started
        with (out / LOG).open("a", encoding="utf-8") as log, board(out, experiment.tensorboard) as curves, Interrupt() as interrupt:
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
                if curves:
                    curves.add_scalar("loss", loss, self.step)
                    curves.add_scalar("lr", lr, self.step)
                self.progress("training", self.step, self.steps, record.in_words(experiment.epochs))
                if self.step % self.steps_per_epoch == 0:
                    self.validated(log, curves)
                due = time.perf_counter() - saved >= 60 * experiment.save_minutes
                if interrupt.asked or due or self.step % self.steps_per_epoch == 0:
                    self.save(out)
                    saved = time.perf_counter()
        self.model.eval()
        return TrainResult(self.model, out / TOKENS, self.epoch_losses, self.step, self.skipped, interrupt.asked)

    def validated(self, log: TextIO, curves: Any) -> None:
        """After an epoch, where scores are due: say them. What is saved comes later, so that a resumed run's log has each of them once."""
        epoch, epochs = self.step // self.steps_per_epoch, self.experiment.epochs
        if self.validation is None or not self.validation.due(epoch, epochs):
            return
        scores = self.validation.scores()
        log.write(Validated(epoch, self.step, scores).to_line())
        log.flush()
        for name, score in scores.items() if curves else ():
            curves.add_scalar(f"validation/{name}", score, self.step)
        self.notify(f"epoch {epoch}/{epochs}  test images: {in_words(scores)}")

    def _take(self, steps: Iterator[Stepped]) -> float | None:
        """Take one step; returns its loss, NaN where its batch has no ground truth, or None where the run has no more steps."""
        try:
            step = next(steps, None)
        except TrainingError as error:
            stays = f", the checkpoint in {self.experiment.out} stays" if self.saved else ""
            raise TrainingError(f"stopped at step {self.step + 1}{stays}: {error}") from None
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
        """What the token file says about this run."""
        experiment, source, source_sum = self.experiment, self.source, str(self.facts["data_fingerprint"])
        training: dict[str, Any] = {
            "experiment": experiment.to_dict(), "images": len(source.names), "steps": self.step, "epoch_losses": self.epoch_losses,
            "data": source.name, "images_without_depth": self.skipped, "data_fingerprint": source_sum,
            **({PLACE: place_sum(experiment.data, source_sum)} if states_units(experiment.data) else {}),
            **({"grown": self.grown} if self.grown else {}),
        }  # fmt: skip
        if isinstance(source, Stored):  # which views they were, since the experiment may not say it
            store = source.store
            kept = {key: store.meta[key] for key in ("views", "augmentation", "seed", "precision", "dtype")}
            training["store"] = {**kept, "split": store.split, "data_fingerprint": store.data_fingerprint}
        return Provenance(experiment.protocol, training)

    def save(self, out: Path) -> None:
        """Write the token file and the checkpoint, each atomically."""
        self.model.provenance = self.provenance()
        self.model.save(out / TOKENS)
        moments, schedule = self.learner.state()
        state = {
            "step": self.step, "skipped": self.skipped, "losses": self.losses, "epoch_losses": self.epoch_losses, **schedule,
            "experiment": self.experiment.to_dict(), "fingerprint": self.model.clip.fingerprint,
            "facts": self.facts, "grown": self.grown,
        }  # fmt: skip
        write(out / STATE, {**self.model.state(), **moments}, state)
        self.saved = True

    def restore(self, out: Path) -> None:
        """Go on from the checkpoint in `out`; a run that was killed before its first checkpoint begins again."""
        if not (out / STATE).is_file():
            cut_log(out / LOG, 0)
            return
        tensors, state = read(out / STATE)
        try:
            before = self._compare(out, state)
            ours = {name: value for name, value in tensors.items() if not name.startswith("optimizer.")}
            restore(self.model.state(), ours, out / STATE)
            self.learner.restore(tensors, state)
            self.grown = [dict(grown) for grown in state.get("grown", [])]
            self.skipped = int(state["skipped"])
            self.losses, self.epoch_losses = list(map(float, state["losses"])), list(map(float, state["epoch_losses"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{out / STATE} is not the checkpoint of this run ({type(error).__name__}: {error})") from error
        self.saved = True
        if before < self.experiment.epochs:
            self._grow(before)
        cut_log(out / LOG, self.step)

    def _compare(self, out: Path, state: Mapping[str, Any]) -> int:
        """How many epochs a checkpoint's run was to have. Raises UsageError, naming it, for whatever else is not as it was there."""
        usual = {field.name: field.default for field in fields(Experiment)}  # of settings that files leave out, or did not have
        now, then = ({**usual, **settings} for settings in (self.experiment.to_dict(), state["experiment"]))
        changed = [name for name in now if name not in _MAY_CHANGE and json.loads(json.dumps(now[name])) != then.get(name)]
        if changed:
            raise UsageError(f"cannot resume {out} with other settings: {', '.join(changed)} changed")
        if now["epochs"] < then["epochs"]:
            raise UsageError(f"cannot resume {out} with fewer epochs: it was begun for {then['epochs']}")
        if state["fingerprint"] != self.model.clip.fingerprint:
            raise UsageError(f"cannot resume {out} with another CLIP than it began with")
        facts = state.get("facts", {})  # runs begun by an earlier version have none
        if facts and facts["images"] != self.facts["images"]:
            raise UsageError(f"cannot resume {out} on {self.facts['images']} images: it began with {facts['images']}")
        if facts and facts["data_fingerprint"] != self.facts["data_fingerprint"]:
            raise UsageError(f"cannot resume {out}: {self.experiment.data} has changed since it began (images, depths, scale or range)")
        if facts and facts["versions"] != self.facts["versions"]:
            self.notify(f"note: this run began with other versions: {', '.join(f'{k} {v}' for k, v in facts['versions'].items())}")
        return int(then["epochs"])

    def _grow(self, epochs: int) -> None:
        """Follow the longer schedule from the step where the run stands."""
        learner = self.learner
        learner.follow(self.steps)
        self.grown.append({"step": learner.done, "epochs": epochs})
        self.notify(
            f"note: from step {learner.done} on the learning rate follows a schedule of {self.experiment.epochs} epochs instead of "
            f"{epochs}: not the same as that many from the start"
        )
