"""SILog, the training loss, as the released code runs it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError

MIN_TRUTH = 0.001  # metres; ground truth at or below is "no ground truth"


def silog(depth: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant log loss, 10 sqrt(var(g) + 0.15 mean(g)^2) with g = log depth - log target over valid pixels.

    depth: [B, 1, h, w] metres, resized here (bilinear, align_corners=True) to target: [B, 1, H, W] metres, valid where > 0.001.
    Released code; the paper's eq. 1 prints mean(g^2) + 0.15 mean(g)^2 without the root, which is not what was run. Differentiable
    once, with respect to depth. Raises DataError where no pixel is valid.
    """
    with torch.autocast(depth.device.type, enabled=False):
        return _Silog.apply(depth.float(), target)


class _Silog(torch.autograd.Function):
    """Resizing, loss and gradient in one pass over the pixels.

    Resizing is separable, D = R d Cᵀ, and the gradient with respect to D is a (g - 0.85 mean(g)) / D with one number a, so the gradient
    with respect to d is a (Rᵀ (g / D) C - 0.85 mean(g) Rᵀ (1 / D) C): both sums are gathered before a and mean(g) are known, and no
    full-size map outlives its image. On a CPU images go one by one, so that a map stays in cache.
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
        if not count:
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
    """[large, small]: bilinear resizing of one axis with align_corners=True."""
    position = torch.arange(large, dtype=torch.float64) * ((small - 1) / max(large - 1, 1))
    left = position.long().clamp(max=max(small - 2, 0))
    share = position - left
    matrix = torch.zeros(large, small, dtype=torch.float64)
    matrix[torch.arange(large), left] = 1 - share
    if small > 1:
        matrix[torch.arange(large), left + 1] = share
    return matrix.float().to(device)
