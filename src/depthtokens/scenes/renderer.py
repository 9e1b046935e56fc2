"""From a seed to an image with exact depth and its content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import unknown
from . import indoor, road
from .content import Content
from .raycast import describe, picture, trace
from .solids import Array

BUILDERS = {"indoor": indoor.build, "road": road.build}
"""What makes the world of each domain from a generator."""


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        rgb: uint8 [H, W, 3].
        depth: float32 [H, W], metres along the optical axis, 0 = none (sky).
        content: what can be seen.
    """

    rgb: NDArray[np.uint8]
    depth: Array
    content: Content


def render(seed: int, domain: str, size: tuple[int, int] = (208, 272)) -> Scene:
    """The scene of a seed: the same pixels on every run.

    Args:
        seed: 0 or more.
        domain: "indoor" (rooms) or "road".
        size: (height, width) in pixels; another size shows the same scene.

    Raises:
        UsageError: where the domain is unknown.
    """
    if domain not in BUILDERS:
        raise unknown("scene domain", domain, BUILDERS)
    code = sorted(BUILDERS).index(domain)
    world = BUILDERS[domain](np.random.default_rng([code, seed]))
    depth, seen, rays = trace(world.camera, world.solids, size)
    rgb = picture(world, depth, seen, rays, np.random.default_rng([code, seed, 1]))
    return Scene(rgb, depth, describe(world, depth, seen))
