"""The upper control, learned from a source of patch features in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..data.dataset import DepthDataset
from ..depth.loss import patch_truth
from ..depth.model import DepthTokens
from ..depth.ridge import Ridge, moments, solve, squared_error
from ..errors import DataError
from ..features.views import Views
from ..progress import Progress, silent
from .controls import MOST, spaced
from .source import HELD_OUT, Reading, Source, drawn, open_source

STRENGTHS = tuple(10.0**power for power in range(-6, 3))
"""What the strength of the penalty is chosen from, in units of the features' mean variance."""
UNCHOSEN = 1.0
"""The strength where nothing can be held out: one image has truth."""
PARTS = 5
"""In so many parts training images fall, each of which is held out once to choose the strength on: with few images one part says little."""


def learn_ridge(source: Source, images: Sequence[int] | None = None, seed: int = 0, progress: Progress = silent) -> Ridge:
    """Learn ridge regression of log depth on patch features, in closed form.

    The strength is that with the least squared error of log depth on held-out images; with it all images are fitted. In memory are
    `PARTS` matrices of [C + 2, C + 2] float64, however many images there are.

    Args:
        source: of training views, the first of each image.
        images: which of its images; None for all.
        seed: of which images are held out together.
        progress: called as images are read.

    Raises:
        DataError: where no image has valid depth, or images cannot be read.
    """
    chosen = list(range(len(source.names)) if images is None else images)
    parts = (drawn(seed, 0, HELD_OUT).permutation(len(chosen)) % PARTS).tolist()
    sums: dict[int, Tensor] = {}
    for done, batch in enumerate(source.training(0, chosen, 1, seed)):  # one by one: images may differ in size
        truth = patch_truth(batch.truth, (batch.patches.shape[-2], batch.patches.shape[-1]))
        if bool(truth.any()):
            found = moments(batch.patches, truth)
            sums[parts[done]] = sums[parts[done]].add_(found) if parts[done] in sums else found
        progress("fitting the ridge", done + 1, len(chosen))
    if not sums:
        raise DataError(f"the training images of {source.name} have no valid depth to fit a ridge to")
    whole, strength = torch.stack(list(sums.values())).sum(dim=0), UNCHOSEN
    if len(sums) > 1:
        errors = dict.fromkeys(STRENGTHS, 0.0)
        for held in sums.values():
            for tried, solution in zip(STRENGTHS, solve(whole - held, STRENGTHS), strict=True):
                errors[tried] += squared_error(solution, held)
        strength = min(STRENGTHS, key=errors.__getitem__)
    (solution,) = solve(whole, [strength])
    device = batch.patches.device
    return Ridge(solution[:-1].float().to(device), float(solution[-1]), strength, source.depth_range)


def ridge_for(model: DepthTokens, training: DepthDataset, reading: Reading) -> Ridge:
    """The ridge on the features that a model reads.

    Args:
        model: whose image tower, mode and normalisation decide what features are.
        training: images, plain; where they are more than `MOST`, so many of them are read, as by other controls, and nothing is kept.
        reading: how features are computed and kept.

    Raises:
        DataError: where no image has valid depth, or images cannot be read.
    """
    how = replace(reading, cache=reading.cache and len(training) <= MOST)
    source = open_source(model, training, Views(normalisation=model.settings.normalisation), how)
    return learn_ridge(source, spaced(len(training)), progress=reading.progress)
