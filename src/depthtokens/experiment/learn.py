"""Learning: the one training loop, for one model or for many side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from ..depth.fused import Output
from ..depth.linear import LinearHead, Trainable
from ..depth.loss import bin_cross_entropy, silog
from ..depth.model import DepthTokens
from ..depth.objective import Objective
from ..depth.settings import SHIFT
from ..errors import TrainingError
from ..progress import Progress, silent
from ..prompt.encoder import joined
from .source import ORDER, Batch, Source, drawn

SCALE_LR = 100
"""How many times larger the learning rate of a learned logit scale is than that of tokens."""


class TextPass:
    """Text features of several models, the same as `text_features` of each gives, in as few passes over the text tower as possible.

    A pass over a few prompts costs little more than reading the tower's weights, so models with the same template, none of whose context
    is learned, share one. Text features that training does not change are computed once.

    Args:
        models: on one CLIP or several.
    """

    def __init__(self, models: Sequence[Trainable]) -> None:
        self.models = models
        self._groups: dict[Any, list[int]] = {}
        self._constant: dict[int, Tensor] = {}
        for i, model in enumerate(models):
            if isinstance(model, LinearHead) or model.settings.condition == SHIFT:
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

    def __call__(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """[N, C] of each model, L2-normalised rows, with gradients; [B, N, C] where prompts depend on the image.

        Args:
            patches: for each model [B, C, h, w], what it sees.
        """
        found = dict(self._constant)
        for key, group in self._groups.items():
            if len(group) == 1:
                found[group[0]] = self.models[group[0]].text_features(patches[group[0]])
                continue
            models = self._prompted(group)
            features = models[0].encoder.encode(self._layouts[key], torch.cat([model.vectors() for model in models]))
            parts = torch.nn.functional.normalize(features, dim=-1).split([len(model.layout.ids) for model in models])
            found |= dict(zip(group, parts, strict=True))
        return [found[i] for i in range(len(self.models))]

    def _prompted(self, group: list[int]) -> list[DepthTokens]:
        """The models of a group that have prompts, which are all of them where a group has several."""
        return [model for model in (self.models[i] for i in group) if isinstance(model, DepthTokens)]


class Learner:
    """One model with its optimiser (AdamW) and its schedule (OneCycle), as released.

    Attributes:
        model: what is trained.
        steps: number of steps in the whole schedule.
        done: number of steps so far; one whose batch had no valid truth counts.
        clip_norm: largest gradient norm.
        objective: what is minimised.
        optimizer: torch's AdamW.
        scheduler: torch's OneCycleLR.

    Args:
        model: what is trained.
        steps: number of steps in the whole schedule.
        lr: peak learning rate.
        weight_decay: of everything but a learned logit scale.
        clip_norm: larger gradients are scaled down to this norm.
        objective: what is minimised: silog, as released, silog+ce[:WEIGHT] or silog+ordinal[:WEIGHT].

    Raises:
        TrainingError: where the model has nothing to learn.
        UsageError: for an unknown objective.
    """

    def __init__(
        self,
        model: Trainable,
        steps: int,
        *,
        lr: float = 3.57e-4,
        weight_decay: float = 0.1,
        clip_norm: float = 0.1,
        objective: str = "silog",
    ) -> None:
        self.model, self.steps, self.clip_norm, self.objective = model, steps, clip_norm, Objective.read(objective)
        self.optimizer, self.scheduler = make_optimizer(model, steps, lr, weight_decay)
        self.done = 0

    def loss(self, view: Batch, text: Tensor) -> Tensor:
        """The objective on a batch, with gradients.

        Args:
            view: some of whose images have truth.
            text: the model's text features, [N, C], or [B, N, C] where prompts depend on the image.
        """
        term, weight = self.objective.term, self.objective.weight
        if term is None:
            return silog(self.model.depth_from(view.patches, text).depth, view.truth)
        logits, centres = self.model.logits(view.patches, text), self.model.centres_of(view.patches)
        beside = bin_cross_entropy(logits, view.truth, centres, ordinal=term == "ordinal")
        return silog(Output.of(logits, centres).depth, view.truth) + weight * beside

    def clip(self) -> Tensor:
        """Scale the gradient down to the largest norm that it may have; returns the norm that it had."""
        return torch.nn.utils.clip_grad_norm_(list(self.model.trainable().values()), self.clip_norm)

    def advance(self) -> None:
        """Go to the next step of the schedule."""
        self.done += 1
        if self.done < self.steps:
            self.scheduler.step()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint keeps of optimiser and schedule: tensors by name, and plain values."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.trainable().items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        plain = {k: v for k, v in self.scheduler.state_dict().items() if isinstance(v, int | float | str | bool | list)}
        return tensors, {"step": self.done, "groups": groups, "scheduler": plain}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Args:
            tensors: its tensors, and others that do not begin as they do.
            values: its plain values; others do no harm.

        Raises:
            ValueError: for tensors that are not its own.
        """
        trainable = self.model.trainable()
        wanted = {f"optimizer.{name}.{key}": value.shape for name, value in trainable.items() for key in ("exp_avg", "exp_avg_sq")}
        wanted |= {f"optimizer.{name}.step": torch.Size() for name in trainable}
        if wrong := [name for name, value in tensors.items() if name.startswith("optimizer.") and wanted.get(name) != value.shape]:
            raise ValueError(f"'{wrong[0]}' is no tensor of this optimiser")
        for name, parameter in trainable.items():
            prefix = f"optimizer.{name}."
            moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            self.optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()}
        for group, saved in zip(self.optimizer.param_groups, values["groups"], strict=True):
            group.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), **values["scheduler"], "total_steps": self.steps})
        self.done = int(values["step"])

    def follow(self, steps: int) -> None:
        """From the next step on, follow a schedule of so many steps in all."""
        self.steps = self.scheduler.total_steps = steps
        fresh = make_optimizer(self.model, steps)[1]
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), "_schedule_phases": fresh.state_dict()["_schedule_phases"]})
        self.scheduler.last_epoch = self.done - 1
        self.scheduler.step()


def make_optimizer(
    model: Trainable, total_steps: int, lr: float = 3.57e-4, weight_decay: float = 0.1
) -> tuple[torch.optim.AdamW, OneCycleLR]:
    """AdamW over what a model trains, and OneCycle (div 25, final div 100, momentum 0.85-0.95).

    Source: released code. A learned logit scale, which it does not have, gets `SCALE_LR` times the learning rate and no weight decay: at
    the tokens' rate its logarithm would hardly move from where it starts.

    Args:
        model: what is trained.
        total_steps: number of steps in the whole schedule.
        lr: peak learning rate.
        weight_decay: of everything but a learned logit scale.

    Returns:
        The optimiser and the schedule of its learning rate.

    Raises:
        TrainingError: where the model has nothing to learn.

    Example:
        >>> from depthtokens import DepthTokens, load_clip
        >>> optimizer, scheduler = make_optimizer(DepthTokens(load_clip("bundled")), total_steps=100)
        >>> round(scheduler.get_last_lr()[0], 8)  # the peak over 25
        1.428e-05
    """
    trainable = model.trainable()
    if not trainable:
        raise TrainingError("nothing to learn: use --depth learned:N, a template with {ctx} slots, --scale learned, or --condition gain")
    groups: list[dict[str, Any]] = []
    vectors = [parameter for name, parameter in trainable.items() if name != "log_scale"]
    if vectors:
        groups.append({"params": vectors, "lr": lr})
    if "log_scale" in trainable:
        groups.append({"params": [trainable["log_scale"]], "lr": SCALE_LR * lr, "weight_decay": 0.0})
    return _one_cycle(groups, total_steps, weight_decay)


def _one_cycle(groups: list[dict[str, Any]], total_steps: int, weight_decay: float) -> tuple[torch.optim.AdamW, OneCycleLR]:
    """AdamW over parameter groups whose "lr" is their peak, and its schedule."""
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
    peaks = [group["lr"] for group in groups]
    scheduler = OneCycleLR(
        optimizer, max_lr=peaks, total_steps=total_steps, div_factor=25, final_div_factor=100, base_momentum=0.85, max_momentum=0.95
    )
    return optimizer, scheduler


def update(learners: Sequence[Learner], texts: TextPass, views: Sequence[Batch]) -> list[float]:
    """Take one step with each learner, on a batch of its own.

    The losses of different models share no parameter, so in the gradient of their sum each model finds its own. A GPU is waited for once,
    between gradient and step, for all losses and norms together.

    Args:
        learners: the models.
        texts: gives the text features of these models, in the same order.
        views: a batch for each learner.

    Returns:
        The loss of each learner before the step; NaN, and no step, where its batch has no valid truth.

    Raises:
        TrainingError: where a loss or gradient is not a finite number; then all models stay as they are.
    """
    features = texts([view.patches for view in views])
    losses: dict[int, Tensor] = {}
    for i, (learner, text, view) in enumerate(zip(learners, features, views, strict=True)):
        learner.optimizer.zero_grad(set_to_none=True)
        if view.without_truth < len(view.truth):
            losses[i] = learner.loss(view, text)
    found = [float("nan")] * len(learners)
    if losses:
        together = torch.stack(list(losses.values()))
        together.sum().backward()
        norms = torch.stack([learners[i].clip() for i in losses])
        values, lengths = torch.stack([together.detach(), norms]).cpu().tolist()
        if not all(map(math.isfinite, [*values, *lengths])):
            raise TrainingError(_not_finite(views))
        for i, value in zip(losses, values, strict=True):
            learners[i].optimizer.step()
            found[i] = value
    for learner in learners:
        learner.advance()
    return found


def _not_finite(views: Sequence[Batch]) -> str:
    """Why a loss or its gradient is not a finite number, and what helps."""
    if not all(bool(view.patches.isfinite().all()) for view in views):  # a GPU is not asked before
        return "the image tower's features are NaN or infinite: use --precision float32"
    return "the loss or its gradient is not a number: try a smaller --lr or check the depths with `depthtokens data check`"


def epoch_order(images: int, seed: int, epoch: int) -> list[int]:
    """The order of images in an epoch, which depends on seed and epoch only.

    Args:
        images: how many there are.
        seed: of the run.
        epoch: counted from 0.
    """
    return drawn(seed, epoch, ORDER).permutation(images).tolist()


class Step(NamedTuple):
    """One step of all learners.

    Attributes:
        losses: of each learner before the step; NaN, and no step, where its batch had no valid truth.
        without_truth: how many images in the first learner's batch have no valid truth.
    """

    losses: list[float]
    without_truth: int


def learn(learners: Sequence[Learner], source: Source, *, batch_size: int = 16) -> Iterator[Step]:
    """Train models side by side until their schedules end.

    Each model sees the images in the order that its seed gives, and comes out as if it had been trained alone, within rounding. Learners
    that have taken steps before go on from there, even in the middle of an epoch.

    Args:
        learners: one or more; all must have done the same number of steps, of the same number in all.
        source: of training views.
        batch_size: images in a step.

    Yields:
        Each step, once it is done.

    Raises:
        TrainingError: where a loss or gradient is not a finite number; all models stay as they were before that step.
    """
    ((first, steps),) = {(learner.done, learner.steps) for learner in learners}
    texts = TextPass([learner.model for learner in learners])
    seeds = [learner.model.settings.seed for learner in learners]
    images = len(source.names)
    per_epoch = -(-images // batch_size)
    for epoch in count(first // per_epoch):
        begun = first % per_epoch if epoch == first // per_epoch else 0
        views = {
            seed: source.training(epoch, epoch_order(images, seed, epoch)[begun * batch_size :], batch_size, seed)
            for seed in dict.fromkeys(seeds)
        }
        for _ in range(begun, per_epoch):
            if learners[0].done == steps:
                return
            batches = {seed: _next(one) for seed, one in views.items()}
            yield Step(update(learners, texts, [batches[seed] for seed in seeds]), batches[seeds[0]].without_truth)


def _next(views: Iterator[Batch]) -> Batch:
    """The next batch. Raises TrainingError where it is too small for BatchNorm to take statistics of."""
    try:
        return next(views)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            "a batch leaves BatchNorm one value per channel to take statistics of: "
            "give a larger --crop or --batch-size, or --batchnorm frozen"
        ) from error


def peak_share(steps: int) -> float:
    """How much of the peak learning rate a OneCycle schedule of so many steps ever reaches, 0 to 1."""
    if steps > 100:
        return 1.0
    optimizer, scheduler = _one_cycle([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}], steps, 0.0)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    return float(max(rates))


def fit(learners: Sequence[Learner], source: Source, *, batch_size: int = 16, progress: Progress = silent) -> list[list[float]]:
    """Run `learn` to its end.

    Args:
        learners: as for `learn`.
        source: of training views.
        batch_size: images in a step.
        progress: called after every step.

    Returns:
        For each learner its loss, step by step; NaN where a batch had no valid truth.

    Raises:
        TrainingError: as `learn`.
    """
    losses: list[list[float]] = [[] for _ in learners]
    for step in learn(learners, source, batch_size=batch_size):
        for history, loss in zip(losses, step.losses, strict=True):
            history.append(loss)
        progress("learning", learners[0].done, learners[0].steps)
    return losses
