"""The upper control in closed form: ridge regression of log depth on patch features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .loss import MIN_TRUTH


@dataclass(frozen=True)
class Ridge:
    """A head: log depth is linear in a patch's features. It looks at the image as tokens do, and says nothing in words.

    Attributes:
        weight: [C] float32, on the device of the features that it was learned from.
        bias: log metres.
        strength: of the penalty on `weight`, in units of the features' mean variance.
        depth_range: (lo, hi) metres, to which depths are clamped.
    """

    weight: Tensor
    bias: float
    strength: float
    depth_range: tuple[float, float]

    @property
    def parameters(self) -> int:
        """How many numbers it consists of: C + 1."""
        return len(self.weight) + 1

    def __call__(self, patches: Tensor) -> Tensor:
        """Depth [B, 1, h, w] metres of patch features [B, C, h, w]."""
        return (F.conv2d(patches.float(), self.weight[None, :, None, None]) + self.bias).exp().clamp(*self.depth_range)


def moments(patches: Tensor, truth: Tensor) -> Tensor:
    """Sums of products over patches that have truth: all that ridge regression needs to know of them. Those of more patches are added.

    Args:
        patches: [B, C, h, w].
        truth: [B, h, w] metres, 0 = none, as `loss.patch_truth` gives it.

    Returns:
        [C + 2, C + 2] float64, on the CPU where the device has no double precision: products of features, 1 and log depth.
    """
    if patches.device.type == "mps":
        patches, truth = patches.cpu(), truth.cpu()
    channels = patches.shape[1]
    valid = truth.flatten() > MIN_TRUTH
    rows = torch.ones(int(valid.sum()), channels + 2, dtype=torch.float64, device=patches.device)
    rows[:, :channels] = patches.permute(0, 2, 3, 1).reshape(-1, channels)[valid]
    rows[:, -1] = truth.flatten()[valid].double().log()
    return rows.T @ rows


def solve(sums: Tensor, strengths: Sequence[float]) -> list[Tensor]:
    """Ridge regression for several strengths of the penalty, which leaves the constant free.

    Args:
        sums: of `moments`, of at least one patch.
        strengths: each in units of the mean variance of a feature.

    Returns:
        For each strength [C + 1] float64: weights, then the constant.
    """
    mean = sums[-2] / sums[-2, -2]
    spread = sums / sums[-2, -2] - mean.outer(mean)
    values, vectors = torch.linalg.eigh(spread[:-2, :-2])
    along = vectors.T @ spread[:-2, -1]
    values, unit = values.clamp(min=0), values.mean().clamp(min=torch.finfo(values.dtype).tiny)
    weights = [vectors @ (along / (values + strength * unit)) for strength in strengths]
    return [torch.cat([weight, (mean[-1] - mean[:-2] @ weight)[None]]) for weight in weights]


def squared_error(solution: Tensor, sums: Tensor) -> float:
    """Squared error of log depth, summed over the patches of `sums`.

    Args:
        solution: [C + 1], of `solve`.
        sums: of `moments`.
    """
    residual = torch.cat([solution, solution.new_tensor([-1.0])])
    return float(residual @ sums @ residual)
