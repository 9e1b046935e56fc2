"""One step of the released recipe: SILog, clipped gradients, AdamW under a one-cycle learning rate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from ..depth.loss import silog
from ..depth.model import DepthTokens
from ..errors import TrainingError


def make_optimizer(
    model: DepthTokens, total_steps: int, lr: float = 3.57e-4, weight_decay: float = 0.1
) -> tuple[torch.optim.AdamW, OneCycleLR]:
    """AdamW over the model's tokens and OneCycle over `total_steps` (peak lr, div 25, final div 100, momentum 0.85-0.95; released code).

    Raises TrainingError where the model has nothing to learn.
    """
    parameters = list(model.trainable().values())
    if not parameters:
        raise TrainingError("nothing to learn: use --depth learned:N, a template with {ctx} slots, or --scale learned")
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    scheduler = OneCycleLR(
        optimizer, max_lr=lr, total_steps=total_steps, div_factor=25, final_div_factor=100, base_momentum=0.85, max_momentum=0.95
    )
    return optimizer, scheduler


def update(model: DepthTokens, optimizer: torch.optim.Optimizer, patches: Tensor, target: Tensor, clip_norm: float) -> Tensor:
    """One optimiser step on patch features [B, C, h, w] and target [B, 1, H, W] metres; returns the loss before it.

    Raises TrainingError, changing nothing, where loss or gradient is not a number; DataError where no pixel of the target is valid.
    """
    loss = silog(model.depth_from(patches, model.text_features()).depth, target)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(list(model.trainable().values()), clip_norm)
    if not torch.isfinite(loss.detach() + norm):
        raise TrainingError(
            "the loss or its gradient is not a number: try a smaller --lr or check the depths with `depthtokens data check`"
        )
    optimizer.step()
    return loss.detach()
