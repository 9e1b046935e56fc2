"""What a family of image towers is made of: a trunk, and the modes in which patch features go on from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Mode:
    """One way to read patch features.

    Attributes:
        read: from an open_clip image module and its trunk's output to features [B, C, h, w].
        finer: how many times smaller its stride is than the family's.
        trunk: as `Family.trunk`, for a mode that reads something else than the others do, an earlier layer for example.
        project: of the module, the one linear layer that the mode is from the trunk's output on (before its L2 norm), if it is that.
        kept: of the module, which of the trunk's channels the mode keeps (after its L2 norm), int64 [C], and how many the trunk has, if it
            is no more than that.
    """

    read: Callable[[Any, Any], Tensor]
    finer: int = 1
    trunk: Callable[[Any, Tensor], Any] | None = None
    project: Callable[[Any], nn.Linear] | None = None
    kept: Callable[[Any], tuple[Tensor, int]] | None = None

    @property
    def linear(self) -> bool:
        """Whether the mode is linear in the trunk's output, up to length."""
        return self.project is not None or self.kept is not None


@dataclass(frozen=True)
class Family:
    """A kind of image tower.

    Attributes:
        fits: whether an open_clip image module is of this kind.
        trunk: from a module and images [B, 3, H, W] to what modes read, unless they have a trunk of their own.
        stride: pixels per position of that trunk's output.
        modes: name -> `Mode`, the family's default first.
        drop: what comes behind the trunk is taken away from the module; None where nothing does.
        channels: width of the joint embedding.
        own: (H, W) of the images that the module was trained on.
        fixed: (H, W) of the only images that the module takes, None where it takes any.
    """

    fits: Callable[[nn.Module], bool]
    trunk: Callable[[Any, Tensor], Any]
    stride: Callable[[Any], int]
    modes: dict[str, Mode]
    drop: Callable[[Any], None] | None = None
    channels: Callable[[Any], int] = lambda visual: int(visual.output_dim)
    own: Callable[[Any], tuple[int, int]] = lambda visual: own_size(visual.image_size)
    fixed: Callable[[Any], tuple[int, int] | None] = lambda visual: None

    def trunk_of(self, mode: str) -> Callable[[Any, Tensor], Any]:
        """The trunk that a mode reads."""
        return self.modes[mode].trunk or self.trunk


def resized_positions(
    positions: Tensor, h: int, w: int, own: tuple[int, int] | None = None, classes: int = 1, mode: str = "bicubic", antialias: bool = True
) -> Tensor:
    """Position embedding of one grid for another.

    Args:
        positions: [classes + own h * own w, D].
        h: rows of the grid that is wanted.
        w: its columns.
        own: (h, w) of the grid that they are of; None for a square one.
        classes: how many of them, before the others, are of class tokens and stay.
        mode: of the resize, as torch calls it; the defaults are what open_clip does at loading.
        antialias: likewise.

    Returns:
        [classes + h*w, D].
    """
    side = round((len(positions) - classes) ** 0.5)
    own = own or (side, side)
    # A graph that is exported for any size must not ask whether it is this one; at its own size the resize below changes nothing.
    if not torch.compiler.is_exporting() and (h, w) == own:
        return positions
    grid = positions[classes:].T.reshape(1, -1, *own)
    grid = F.interpolate(grid.float(), size=(h, w), mode=mode, antialias=antialias, align_corners=False)
    return torch.cat([positions[:classes], grid[0].flatten(1).T.to(positions.dtype)])


def own_size(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, as open_clip writes them: two numbers, or one for both."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def thinned_channels(trunk_channels: int, joint_channels: int, device: torch.device | None = None) -> Tensor:
    """Which trunk channels a nearest resize of the channel axis keeps, some of them twice where it makes more: [joint_channels] int64."""
    return torch.arange(joint_channels, device=device) * trunk_channels // joint_channels


def thinned(x: Tensor, channels: int) -> Tensor:
    """[B, D, h, w] -> [B, channels, h, w]: L2-normalised over D channels, then thinned, and not normalised again (both released codes)."""
    return F.normalize(x.float(), dim=1)[:, thinned_channels(x.shape[1], channels, x.device)]


def unit_grid(tokens: Tensor, size: tuple[int, ...]) -> Tensor:
    """[B, h*w, C] -> L2-normalised [B, C, h, w]."""
    return F.normalize(tokens.float(), dim=-1).transpose(1, 2).unflatten(2, size)
