"""What a picture is taken of, and from where: camera, lights, and the world they are in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, sin, tan

import numpy as np

from .content import Content
from .solids import Array, Solid, Vec


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        position: in metres.
        yaw: to the right, in radians.
        pitch: up, in radians.
        roll: in radians.
        view: the horizontal field of view, in radians.
    """

    position: Vec
    yaw: float
    pitch: float
    roll: float
    view: float

    def rotation(self) -> Array:
        """[3, 3] matrix from camera axes (right, up, ahead) to the world's."""
        (cy, sy), (cp, sp), (cr, sr) = ((cos(a), sin(a)) for a in (self.yaw, self.pitch, self.roll))
        turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return (turn @ nod @ tilt).astype(np.float32)

    def focal(self, width: int) -> float:
        """Focal length in pixels of an image of this width."""
        return width / 2 / tan(self.view / 2)

    def rays(self, size: tuple[int, int]) -> Array:
        """[3, H, W] directions in the world, one metre long along the optical axis: a ray's parameter is the depth in metres."""
        height, width = size
        f = self.focal(width)
        x = ((np.arange(width) + 0.5 - width / 2) / f).astype(np.float32)
        y = ((height / 2 - np.arange(height) - 0.5) / f).astype(np.float32)
        r = self.rotation()[:, :, None, None]
        return r[:, 0] * x[None, None, :] + r[:, 1] * y[None, :, None] + r[:, 2]


@dataclass(frozen=True)
class Light:
    """A lamp, or the sun.

    Attributes:
        place: where the lamp is, in metres; of the sun, the unit vector towards it.
        colour: RGB.
        reach: the distance in metres at which the lamp's light is halved; None for the sun.
    """

    place: Vec
    colour: Vec
    reach: float | None = None


@dataclass
class World:
    """Everything a picture is taken of.

    Attributes:
        camera: where it is taken from.
        content: as planned; `raycast.describe` adds what turned out to be visible.
        solids: what can be seen.
        lights: the first casts shadows.
        ambient: RGB of the light from everywhere.
        sky: ray directions [3, M] -> linear RGB [3, M].
        haze: its RGB, and the distance in metres at which 63 % of a surface is hidden.
        ground: world x and z [M] and pixel footprint [M] in metres -> sRGB [3, M], for paint of texture GROUND.
        corners: limits of the room (x0, x1, y0, y1, z0, z1) in metres; surfaces darken towards them.
    """

    camera: Camera
    content: Content
    solids: list[Solid]
    lights: list[Light]
    ambient: Vec
    sky: Callable[[Array], Array] | None = None
    haze: tuple[Vec, float] | None = None
    ground: Callable[[Array, Array, Array], Array] | None = None
    corners: tuple[float, ...] = ()
