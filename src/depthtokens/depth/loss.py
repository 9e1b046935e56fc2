"""What training minimises: SILog as the released code runs it, and cross-entropy of the bins, which may stand beside it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.device import may_read
from ..errors import DataError, UsageError
from .shapes import need

MIN_TRUTH = 0.001
"""Metres; ground truth at or below it counts as none."""


def silog(depth: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant log loss: 10 sqrt(var(g) + 0.15 mean(g)^2) with g = log depth - log target over all valid pixels of the batch.

    Source: released code. The paper's eq. 1 prints mean(g^2) + 0.15 mean(g)^2 without the root, which is not what was run.

    Args:
        depth: [B, 1, h, w] metres; resized here to the target's size (bilinear, align_corners=True).
        target: [B, 1, H, W] metres; pixels count where it is above 0.001.

    Returns:
        One number, differentiable once with respect to `depth`.

    Raises:
        DataError: where no pixel is valid. On a GPU, which nobody waits for here, the loss is NaN then.
        UsageError: for other shapes, or another number of images in the two.

    Example:
        >>> two, one = torch.full((1, 1, 3, 4), 2.0), torch.ones(1, 1, 6, 8)
        >>> round(silog(two, one).item(), 3)  # 10 sqrt(0.15) log 2: a global factor costs only this share
        2.685
    """
    need(depth, "silog's depth", "[B, 1, h, w]")
    need(target, "silog's target", "[B, 1, H, W]", hint="metres, 0 where there is no ground truth")
    if len(depth) != len(target):
        raise UsageError(f"silog: needs one target for each depth map; these are {len(depth)} maps and {len(target)} targets")
    with torch.autocast(depth.device.type, enabled=False):
        return _Silog.apply(depth.float(), target)


def bin_cross_entropy(logits: Tensor, target: Tensor, centres: Tensor, *, ordinal: bool = False) -> Tensor:
    """Mean over patches with truth of the cross-entropy between bin probabilities and the depth of the patch.

    SILog sees the probabilities only through the depth that they average to, and its gradient vanishes where the softmax is saturated;
    this term names the bin that should win, so that a run that begins far off still moves.

    Args:
        logits: [B, N, h, w], before the softmax; logarithms of probabilities do as well.
        target: [B, 1, H, W] metres, 0 = no truth; reduced to patches by `patch_truth`.
        centres: [N] metres, increasing, or [B, N] where every image has its own; no gradient goes to them.
        ordinal: False wants the bin that the depth lies in, bins being cut half-way between centres. True wants q_n ∝ exp(-(log c_n -
            log d)² / 2σ²), so that a bin nearby is less wrong than one far away; σ is half the mean distance of neighbouring centres in
            log depth. Source: soft ordinal labels, Diaz and Marathe, CVPR 2019, with a squared log distance.

    Returns:
        One number, differentiable; 0 where no patch has truth.

    Raises:
        UsageError: for other shapes, or that do not fit together.

    Example:
        >>> target, centres = torch.full((1, 1, 6, 8), 2.0), torch.tensor([1.0, 2.0, 4.0])
        >>> sure = torch.tensor([0.0, 9.0, 0.0])[None, :, None, None].expand(1, 3, 3, 4)  # of the bin at 2 m
        >>> bin_cross_entropy(sure, target, centres).item() < 0.001
        True
    """
    need(logits, "bin_cross_entropy's logits", "[B, N, h, w]")
    need(target, "bin_cross_entropy's target", "[B, 1, H, W]", hint="metres, 0 where there is no ground truth")
    if len(logits) != len(target) or logits.shape[1] != centres.shape[-1]:
        bins = f"{logits.shape[1]} bins of {len(logits)} images"
        raise UsageError(f"bin_cross_entropy: {bins} do not fit {centres.shape[-1]} centres and {len(target)} targets")
    truth = patch_truth(target, (logits.shape[2], logits.shape[3]))
    valid, centres = truth > MIN_TRUTH, centres.detach()
    with torch.autocast(logits.device.type, enabled=False):
        likely = logits.float().log_softmax(dim=1)
        if ordinal:
            places = centres.log()
            sigma = 0.5 * (places[..., -1:] - places[..., :1]) / (centres.shape[-1] - 1)
            far = (places[..., None, None] - truth.clamp(min=MIN_TRUTH).log()[:, None]) / sigma[..., None, None]
            loss = -((-0.5 * far.square()).softmax(dim=1) * likely).sum(dim=1)
        else:
            edges = (centres[..., 1:] + centres[..., :-1]) / 2
            loss = F.nll_loss(likely, (truth[:, None] > edges[..., None, None]).sum(dim=1), reduction="none")
        return torch.where(valid, loss, 0).sum() / valid.sum().clamp(min=1)


def patch_truth(target: Tensor, grid: tuple[int, int]) -> Tensor:
    """Truth of each patch: the median of valid pixels, of 5×5 spread over the cell that resizing gives the patch.

    A patch's depth goes to pixels as `silog` resizes it, so the first patch lies at the first pixel, not half a patch further in. Truth
    from there fits scores better than truth from the pixels that a patch sees (a ridge regression on 800 rendered rooms has AbsRel 0.285
    against 0.297 on 200 others); a median and one pixel do as well there, but one pixel may be a hole.

    Args:
        target: [B, 1, H, W] metres, 0 = no truth.
        grid: (h, w), patches of an image.

    Returns:
        [B, h, w] metres, 0 = no truth.
    """
    rows, columns = (_spread(small, large, target.device) for small, large in zip(grid, target.shape[-2:], strict=True))
    pixels = target[:, 0, rows.flatten()[:, None], columns.flatten()].view(-1, *rows.shape, *columns.shape).transpose(2, 3).flatten(3)
    return torch.where(pixels > MIN_TRUTH, pixels, torch.nan).nanmedian(dim=3).values.nan_to_num()


@lru_cache(maxsize=32)
def _spread(small: int, large: int, device: torch.device) -> Tensor:
    """[small, 5] pixels of an axis of `large`, five around where each of `small` patches lies."""
    around = torch.tensor([-0.4, -0.2, 0.0, 0.2, 0.4])
    share = (torch.arange(small)[:, None] + around) / (small - 1) if small > 1 else around[None] + 0.5
    return (share.clamp(0, 1) * (large - 1)).round().long().to(device)


class _Silog(torch.autograd.Function):
    """Resizing, loss and gradient in one pass over the pixels.

    Resizing is separable: a small map d becomes D = R d Cᵀ, where R resizes its rows and C its columns. The gradient with respect to D is
    a (g - 0.85 mean(g)) / D with one number a for the whole batch, so the gradient with respect to d is
    a (Rᵀ (g / D) C - 0.85 mean(g) Rᵀ (1 / D) C). The two products in it do not need a or mean(g), which are known only after the last
    image: they are computed image by image, and no full-size map is kept. On a CPU images go one by one, so that a map stays in cache.
    """

    @staticmethod
    def forward(ctx: Any, depth: Tensor, target: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        rows, columns = (
            resize_matrix(small, large, depth.device) for small, large in zip(depth.shape[-2:], target.shape[-2:], strict=True)
        )
        wide = torch.float32 if depth.device.type == "mps" else torch.float64  # Apple's GPUs have no double precision
        count = total = squares = torch.zeros((), dtype=wide, device=depth.device)
        by_g, by_one = [], []
        step = 1 if depth.device.type == "cpu" else len(depth)
        # Full-size maps are worked on in place: fresh memory for each would cost as much as the arithmetic.
        shape = (step, *target.shape[-2:])
        large, g, inverse = (torch.empty(shape, device=depth.device) for _ in range(3))
        valid = torch.empty(shape, dtype=torch.bool, device=depth.device)
        for small, truth in zip(depth[:, 0].split(step), target[:, 0].split(step), strict=True):
            torch.matmul(rows @ small, columns.T, out=large)
            torch.gt(truth, MIN_TRUTH, out=valid)
            torch.where(valid, truth, large, out=g)  # 1 = large / g where there is no truth, whose logarithm is 0
            torch.div(large, g, out=g).log_()
            count = count + valid.sum()
            total = total + g.sum(dtype=wide)
            if wanted:
                inverse.copy_(valid).div_(large)
                by_one.append(rows.T @ inverse @ columns)
                by_g.append(rows.T @ inverse.mul_(g) @ columns)
            squares = squares + g.square_().sum(dtype=wide)
        if may_read(count) and not count:
            raise DataError("no valid ground truth in this batch")
        mean = total / count
        root = (squares / count - 0.85 * mean.square()).clamp(min=0).sqrt()
        if wanted:
            gradient = torch.cat(by_g) - 0.85 * mean.float() * torch.cat(by_one)
            factor = torch.where(root > 0, 10 / (root * count), 0)  # a perfect prediction has nowhere to go
            ctx.save_for_backward(factor.float() * gradient[:, None])
        return 10 * root.float()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None


@lru_cache(maxsize=32)
def resize_matrix(small: int, large: int, device: torch.device) -> Tensor:
    """The matrix that resizes one axis bilinearly with align_corners=True.

    Args:
        small: length of the axis before.
        large: length of the axis after.
        device: where the matrix goes.

    Returns:
        [large, small] float32.
    """
    position = torch.arange(large, dtype=torch.float64) * ((small - 1) / max(large - 1, 1))
    left = position.long().clamp(max=max(small - 2, 0))
    share = position - left
    matrix = torch.zeros(large, small, dtype=torch.float64)
    matrix[torch.arange(large), left] = 1 - share
    if small > 1:
        matrix[torch.arange(large), left + 1] = share
    return matrix.float().to(device)
