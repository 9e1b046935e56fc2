"""What a reproduction will take, told before it runs: bytes of features, and minutes, from a few images and steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ..clip.device import sent
from ..clip.fold import quick
from ..data.dataset import DepthDataset, Sample
from ..depth.linear import LinearHead, Trainable
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol
from ..experiment.evaluate import score_heads
from ..experiment.learn import Learner, TextPass, update
from ..experiment.source import Batch, Reading, Shown, Source, open_source
from ..features.plan import Plan
from ..files import size_text
from .rows import LINEAR, Row
from .settings import Reproduction

PATIENCE = 8.0
"""Seconds for which training steps are timed; those of rows with more prompts are then taken in proportion to the last."""
IMAGES = 2
"""Images that are timed."""


@dataclass(frozen=True)
class Estimate:
    """What a reproduction will take.

    Attributes:
        bytes: of the features that will be stored; those that are there count nothing.
        minutes: of the whole run on this machine, were no row finished yet.
    """

    bytes: int
    minutes: float

    def __str__(self) -> str:
        minutes = f"{self.minutes:.0f} min" if self.minutes >= 1 else "a minute"
        return f"features to store: {size_text(self.bytes)}; about {minutes} on this machine (an estimate, from a few images and steps)"


def estimate(
    settings: Reproduction,
    rows: Sequence[Row],
    sets: Mapping[tuple[str, str], DepthDataset],
    stores: Sequence[Plan],
    model_of: Callable[[Row, int], DepthTokens],
) -> Estimate:
    """Time a few images and steps, and count how many of them a reproduction has.

    Args:
        settings: what will be run.
        rows: all of its rows.
        sets: the data sets by role and split, as plain images.
        stores: that will be made.
        model_of: the model of a row for a seed.
    """
    seeds = settings.seed_list()
    different = [row for number, row in enumerate(rows) if not any(row.same(other) for other in rows[:number])]
    some = {row.role: model_of(row, seeds[0]) for row in different}
    image = {role: _image_seconds(model, sets[role, "train"], settings) for role, model in some.items()}
    score = {role: _score_seconds(model, sets[role, "test"]) for role, model in some.items()}
    step = _step_seconds([row for row in different if row.learns], sets, settings, lambda row: model_of(row, seeds[0]))
    seconds = sum(planned.images * planned.views.stored * image[_role(planned, sets)] for planned in stores)
    for row in different:
        training, test = (len(sets[row.role, split]) for split in ("train", "test"))
        run = test * score[row.role]
        if row.learns:
            run += settings.steps_for(training) * step[row.name]
        if settings.from_images(row) and row.source is None:
            run += training * (settings.epochs if row.learns else 1) * image[row.role]
        if settings.adapts(row):
            run += 2 * test * image[row.role]  # and mirrored
        seconds += run * (len(seeds) if row.seeded else 1)
    return Estimate(sum(planned.bytes for planned in stores), seconds / 60)


def _role(planned: Plan, sets: Mapping[tuple[str, str], DepthDataset]) -> str:
    """Whose data a store is of."""
    return next(role for (role, split), data in sets.items() if (data.spec, split) == (planned.dataset.spec, planned.dataset.split))


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _image_seconds(model: DepthTokens, data: DepthDataset, settings: Reproduction) -> float:
    """Seconds that an image takes through the image tower, or to be read where that takes longer."""
    samples = [data[number] for number in range(min(IMAGES, len(data)))]
    reading = min(_timed(lambda: data[0]) for _ in range(2)) / max(1, settings.workers)
    device, where = model.centres.device, model.settings
    tower = model.tower if settings.as_released else quick(model.tower)

    def encode() -> float:
        image = sent(samples.pop().image[None], device)
        return float(tower.encode(image, where.dense, where.normalisation, settings.precision).sum())

    return max(reading, min(_timed(encode) for _ in range(len(samples))))


def _score_seconds(model: DepthTokens, data: DepthDataset) -> float:
    """Seconds that scoring one image takes, once there is a depth at patch resolution."""
    source = _First(open_source(None, data, None, Reading(workers=0, batch_size=1)), IMAGES)

    def head(images: Tensor) -> Tensor:
        return torch.full((len(images), 1, *_grid(model, images)), model.depth_range[1] / 3)

    return _timed(lambda: score_heads({"": head}, source, "auty2023")) / len(source.names)


class _First:
    """The first images of a source. Its attributes are those of `Source`."""

    def __init__(self, source: Source, count: int) -> None:
        self.source, self.name, self.split, self.names = source, source.name, source.split, source.names[:count]
        self.depth_range, self.eval_crop = source.depth_range, source.eval_crop

    def training(self, epoch: int, order: Sequence[int], batch_size: int, seed: int = 0) -> Iterator[Batch]:
        """As `Source.training`."""
        return self.source.training(epoch, order, batch_size, seed)

    def evaluation(self, protocol: Protocol) -> Iterator[Shown]:
        """As `Source.evaluation`."""
        return islice(self.source.evaluation(protocol), len(self.names))


def _step_seconds(
    rows: Sequence[Row], sets: Mapping[tuple[str, str], DepthDataset], settings: Reproduction, model_of: Callable[[Row], DepthTokens]
) -> dict[str, float]:
    """Seconds of a training step of one run, by the row's name; rows with the same prompts are timed once."""
    found: dict[tuple[str | None, ...], tuple[float, int]] = {}
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    for row in sorted(rows, key=lambda row: row.model.words.count):
        kind = (row.role, row.kind, row.model.template, str(row.model.depth), row.model.condition, row.objective)
        if kind not in found and time.perf_counter() - started < PATIENCE:
            model = model_of(row)
            trained = LinearHead(model) if row.kind == LINEAR else model
            took = _one_step(trained, row.objective, sets[row.role, "train"][0], settings.batch_size)
            found[kind] = took, row.model.words.count
        took, prompts = found.get(kind) or list(found.values())[-1]
        seconds[row.name] = took * max(1.0, row.model.words.count / prompts)
    return seconds


def _one_step(model: Trainable, objective: str, sample: Sample, batch_size: int) -> float:
    """Seconds of a training step on made-up features and the truth of one image."""
    patches = torch.rand(batch_size, model.clip.image.channels, *_grid(model, sample.image))
    truth = sample.depth.expand(batch_size, *sample.depth.shape).contiguous()
    batch = Batch.on(model.centres.device, torch.nn.functional.normalize(patches, dim=1), truth)
    learner, texts = Learner(model, 10, objective=objective), TextPass([model])
    first = _timed(lambda: update([learner], texts, [batch]))
    return first if first > 1 else min(first, _timed(lambda: update([learner], texts, [batch])))


def _grid(model: Trainable, images: Tensor) -> tuple[int, int]:
    """Patches (h, w) of images [..., H, W]."""
    return model.clip.image.grid((images.shape[-2], images.shape[-1]), model.settings.dense)
