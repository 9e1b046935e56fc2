"""The released recipe's optimiser: AdamW under a one-cycle learning rate."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import OneCycleLR

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
