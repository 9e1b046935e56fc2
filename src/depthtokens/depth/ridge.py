"""The upper control in closed form: ridge regression of log depth on patch features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .loss import MIN_TRUTH
from .shapes import need


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


def patch_truth(truth: Tensor, grid: tuple[int, int]) -> Tensor:
    """Ground truth at patch resolution: the median of the valid pixels that are nearest to each patch's place.

    Places are those that protocols and SILog give to patches as they resize depth (align_corners): the outer ones lie on the border. On
    rendered rooms a ridge that learns from the pixels within each patch instead has an AbsRel 4 % higher.

    Args:
        truth: [B, 1, H, W] metres; pixels count where it is above 0.001.
        grid: (h, w), patches.

    Returns:
        [B, 1, h, w] metres, 0 where no pixel of the patch is valid; of an even number of pixels the lower middle one.
    """
    need(truth, "truth", "[B, 1, H, W]")
    rows, columns = (_cells(pixels, patches) for pixels, patches in zip(truth.shape[-2:], grid, strict=True))
    padded = F.pad(truth[:, 0], (0, 1, 0, 1)).cpu()
    cells = padded[:, rows][..., columns].permute(0, 1, 3, 2, 4).flatten(3)  # [B, h, w, pixels of a patch]
    found = cells.where(cells > MIN_TRUTH, torch.nan).nanmedian(dim=-1).values
    return found.nan_to_num(0.0)[:, None].to(truth.device)


def _cells(pixels: int, patches: int) -> Tensor:
    """Which pixels of an axis each patch has, int64 [patches, most pixels]; `pixels` itself, which is none, fills the shorter ones."""
    halves = (2 * torch.arange(patches + 1) - 1) * (pixels - 1)  # where one patch ends and the next begins, in half steps
    edges = -(-halves).div(2 * max(patches - 1, 1), rounding_mode="floor").clamp(max=0)
    edges[-1] = pixels
    first = edges[:-1].clamp(max=pixels - 1)  # with more patches than pixels, some share one
    last = torch.maximum(edges[1:], first + 1)
    places = first[:, None] + torch.arange(int((last - first).max()))
    return places.where(places < last[:, None], pixels)


def moments(patches: Tensor, truth: Tensor) -> Tensor:
    """Sums of products over patches that have truth: all that ridge regression needs to know of them. Those of more patches are added.

    Args:
        patches: [B, C, h, w].
        truth: [B, 1, h, w] metres, 0 = none.

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
