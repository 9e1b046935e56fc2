"""Learning: the one training loop, for one model or many side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from ..depth.linear import LinearHead, Trainable
from ..depth.loss import MIN_TRUTH, silog
from ..depth.model import DepthTokens
from ..errors import TrainingError
from ..progress import Progress, silent
from ..prompt.encoder import joined
from .source import Batch, Source

SCALE_LR = 100
"""How many times faster than tokens a learned logit scale goes."""


class TextPass:
    """Text features of several models on one CLIP, as `text_features` of each gives them, in as few passes as can be.

    A pass over a few prompts costs little more than reading the tower's weights, so models whose template has no learned context take
    one together. What nothing trains is computed once.
    """

    def __init__(self, models: Sequence[Trainable]) -> None:
        self.models = models
        self._groups: dict[Any, list[int]] = {}
        self._constant: dict[int, Tensor] = {}
        for i, model in enumerate(models):
            if isinstance(model, LinearHead):
                self._groups[i] = [i]
            elif not any(vectors.requires_grad for vectors in model.tokens.values()):
                with torch.no_grad():
                    self._constant[i] = model.text_features()
            elif "context" in model.tokens or not model.clip.text.causal:
                self._groups[i] = [i]
            else:
                self._groups.setdefault((id(model.clip), model.settings.template), []).append(i)
        self._layouts = {
            key: joined([model.layout for model in self._prompted(group)], [len(model.vectors()) for model in self._prompted(group)])
            for key, group in self._groups.items()
            if len(group) > 1
        }

    def __call__(self) -> list[Tensor]:
        """[N, C] of each model, L2-normalised rows, with gradients."""
        found = dict(self._constant)
        for key, group in self._groups.items():
            if len(group) == 1:
                found[group[0]] = self.models[group[0]].text_features()
                continue
            models = self._prompted(group)
            features = models[0].encoder.encode(self._layouts[key], torch.cat([model.vectors() for model in models]))
            parts = torch.nn.functional.normalize(features, dim=-1).split([len(model.layout.ids) for model in models])
            found |= dict(zip(group, parts, strict=True))
        return [found[i] for i in range(len(self.models))]

    def _prompted(self, group: list[int]) -> list[DepthTokens]:
        return [model for model in (self.models[i] for i in group) if isinstance(model, DepthTokens)]


class Learner:
    """One model with AdamW and OneCycle as released.

    Attributes:
        done: steps taken.

    Args:
        model: what is trained.
        steps: of the whole schedule.
        lr: peak learning rate.
        weight_decay: of everything but a learned logit scale.
        clip_norm: largest gradient norm.

    Raises:
        TrainingError: where the model has nothing to learn.
    """

    def __init__(self, model: Trainable, steps: int, *, lr: float = 3.57e-4, weight_decay: float = 0.1, clip_norm: float = 0.1) -> None:
        self.model, self.steps, self.clip_norm = model, steps, clip_norm
        self.optimizer, self.scheduler = make_optimizer(model, steps, lr, weight_decay)
        self.done = 0

    def apply(self, loss: Tensor) -> None:
        """Step along the gradient that stands. Raises TrainingError, changing nothing, where it or the loss is not a number."""
        norm = torch.nn.utils.clip_grad_norm_(list(self.model.trainable().values()), self.clip_norm)
        if not torch.isfinite(loss + norm):
            raise TrainingError(
                "the loss or its gradient is not a number: try a smaller --lr or check the depths with `depthtokens data check`"
            )
        self.optimizer.step()

    def advance(self) -> None:
        """Go to the next step of the schedule."""
        self.done += 1
        if self.done < self.steps:
            self.scheduler.step()


def make_optimizer(
    model: Trainable, total_steps: int, lr: float = 3.57e-4, weight_decay: float = 0.1
) -> tuple[torch.optim.AdamW, OneCycleLR]:
    """AdamW over the model's tokens and OneCycle (div 25, final div 100, momentum 0.85-0.95; released code).

    A learned logit scale, which the released code does not have, goes `SCALE_LR` times as fast and does not decay: at the tokens' rate
    its logarithm could not leave where it starts.

    Args:
        model: what is trained.
        total_steps: of the whole schedule.
        lr: peak learning rate.
        weight_decay: of everything but a learned logit scale.

    Raises:
        TrainingError: where the model has nothing to learn.
    """
    trainable = model.trainable()
    if not trainable:
        raise TrainingError("nothing to learn: use --depth learned:N, a template with {ctx} slots, or --scale learned")
    groups: list[dict[str, Any]] = []
    vectors = [parameter for name, parameter in trainable.items() if name != "log_scale"]
    if vectors:
        groups.append({"params": vectors, "lr": lr})
    if "log_scale" in trainable:
        groups.append({"params": [trainable["log_scale"]], "lr": SCALE_LR * lr, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    peaks = [group["lr"] for group in groups]
    scheduler = OneCycleLR(
        optimizer, max_lr=peaks, total_steps=total_steps, div_factor=25, final_div_factor=100, base_momentum=0.85, max_momentum=0.95
    )
    return optimizer, scheduler


def update(learners: Sequence[Learner], texts: TextPass, views: Sequence[Batch]) -> list[float]:
    """One step of each learner on its own batch; returns the losses before it, NaN (and no step) where a batch has no valid truth.

    Losses of different models share no parameter, so the gradient of their sum is each one's own. Raises TrainingError as `Learner.apply`.
    """
    features = texts()
    losses: dict[int, Tensor] = {}
    for i, (learner, text, (patches, truth)) in enumerate(zip(learners, features, views, strict=True)):
        learner.optimizer.zero_grad(set_to_none=True)
        if bool(truth.amax() > MIN_TRUTH):
            losses[i] = silog(learner.model.depth_from(patches, text).depth, truth)
    if losses:
        torch.stack(list(losses.values())).sum().backward()
    for i, loss in losses.items():
        learners[i].apply(loss.detach())
    for learner in learners:
        learner.advance()
    return [losses[i].item() if i in losses else float("nan") for i in range(len(learners))]


def epoch_order(images: int, seed: int, epoch: int) -> list[int]:
    """The order of images in an epoch, from seed and epoch only."""
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


class Step(NamedTuple):
    """One step of all learners.

    Attributes:
        losses: before the step, one per learner; NaN (and no step) where a batch had no valid truth.
        without_truth: images of the first learner's batch that have none.
    """

    losses: list[float]
    without_truth: int


def learn(learners: Sequence[Learner], source: Source, *, batch_size: int = 16) -> Iterator[Step]:
    """Train models side by side until their schedules end, each in its own order of images, by its seed; yields after every step.

    Every learner comes out as if trained alone, within rounding. Learners that have taken steps before go on where they were, in the
    middle of an epoch too.

    Args:
        learners: with the same number of steps, done and in all.
        source: of training views.
        batch_size: images in a step.

    Raises:
        TrainingError: where a loss or gradient is not a number; nothing has changed by that step.
    """
    ((first, steps),) = {(learner.done, learner.steps) for learner in learners}
    texts = TextPass([learner.model for learner in learners])
    seeds = [learner.model.settings.seed for learner in learners]
    images = len(source.names)
    per_epoch = -(-images // batch_size)
    for epoch in count(first // per_epoch):
        begun = first % per_epoch if epoch == first // per_epoch else 0
        views = {
            seed: source.training(epoch, epoch_order(images, seed, epoch)[begun * batch_size :], batch_size)
            for seed in dict.fromkeys(seeds)
        }
        for _ in range(begun, per_epoch):
            if learners[0].done == steps:
                return
            batches = {seed: next(one) for seed, one in views.items()}
            without = int((batches[seeds[0]].truth.flatten(1).amax(dim=1) <= MIN_TRUTH).sum())
            yield Step(update(learners, texts, [batches[seed] for seed in seeds]), without)


def fit(learners: Sequence[Learner], source: Source, *, batch_size: int = 16, progress: Progress = silent) -> list[list[float]]:
    """`learn` to the end; returns each learner's loss, step by step."""
    losses: list[list[float]] = [[] for _ in learners]
    for step in learn(learners, source, batch_size=batch_size):
        for history, loss in zip(losses, step.losses, strict=True):
            history.append(loss)
        progress("learning", learners[0].done, learners[0].steps)
    return losses
