"""The solids a scene is made of, and where rays meet them. World axes: x right, y up, z ahead, all in metres."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Vec = tuple[float, float, float]
Scalars = Array | np.float32 | float  # [M], or one for all
Rays = tuple[Scalars, Scalars, Scalars]  # x, y, z

PLANE, BOX, PRISM, ELLIPSOID, FRUSTUM = range(5)
NEAR = 0.05  # metres; nothing nearer to a ray's start is hit


@dataclass(frozen=True)
class Paint:
    """What a surface looks like.

    Attributes:
        texture: a kind of pattern, see `textures`.
        colour: sRGB in 0..1.
        second: the pattern's other colour.
        scale: the pattern's size in metres.
        emit: own light in 0..1.
    """

    texture: int = 0
    colour: Vec = (0.7, 0.7, 0.7)
    second: Vec = (0.3, 0.3, 0.3)
    scale: float = 0.3
    emit: float = 0.0


@dataclass(frozen=True)
class Solid:
    """A primitive.

    Attributes:
        shape: PLANE, BOX, PRISM (a gable roof with its ridge along x), ELLIPSOID or FRUSTUM (cylinders and cones).
        centre: in metres.
        half: half extents (BOX, PRISM), radii (ELLIPSOID), bottom radius, half height and top radius (FRUSTUM), all in metres, or the unit
            normal (PLANE).
        paint: what its surface looks like.
        yaw: how far it is turned about the vertical through its centre, in radians.
        thing: index of the named thing that it is a part of, -1 = none.
    """

    shape: int
    centre: Vec
    half: Vec
    paint: Paint
    yaw: float = 0.0
    thing: int = -1

    def extent(self) -> Vec:
        """Half extents of the bounding box in the solid's own frame."""
        if self.shape == FRUSTUM:
            radius = max(self.half[0], self.half[2])
            return (radius, self.half[1], radius)
        return self.half

    def corners(self) -> Array:
        """[8, 3] corners of the bounding box, in the world."""
        signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
        x, y, z = (signs * np.array(self.extent(), np.float32)).T
        c, s = cos(self.yaw), sin(self.yaw)
        return np.stack([c * x + s * z, y, c * z - s * x], -1) + np.array(self.centre, np.float32)


def hit(solid: Solid, origin: Rays, direction: Rays) -> Array:
    """Where rays first meet a solid.

    Args:
        solid: the solid.
        origin: x, y and z of where the rays start, in metres.
        direction: x, y and z of their directions.

    Returns:
        [M] ray parameters t, so that `origin + t * direction` is the point; inf where there is none.
    """
    ox, oy, oz = (o - np.float32(c) for o, c in zip(origin, solid.centre, strict=True))
    dx, dy, dz = direction
    if solid.yaw:
        c, s = np.float32(cos(solid.yaw)), np.float32(sin(solid.yaw))
        ox, oz = c * ox - s * oz, s * ox + c * oz
        dx, dz = c * dx - s * dz, s * dx + c * dz
    half = [np.float32(h) for h in solid.half]
    with np.errstate(all="ignore"):
        t = _HIT[solid.shape]((ox, oy, oz), (dx, dy, dz), (half[0], half[1], half[2]))
    return t


def _plane(o: Rays, d: Rays, n: Rays) -> Array:
    t = -(n[0] * o[0] + n[1] * o[1] + n[2] * o[2]) / (n[0] * d[0] + n[1] * d[1] + n[2] * d[2])
    return np.where(t > NEAR, t, np.inf)


def _box(o: Rays, d: Rays, half: Rays) -> Array:
    enter: Scalars = NEAR
    leave: Scalars = np.inf
    for ok, dk, h in zip(o, d, half, strict=True):
        inverse = 1 / dk
        middle, reach = -ok * inverse, np.abs(h * inverse)
        enter, leave = np.maximum(enter, middle - reach), np.minimum(leave, middle + reach)
    return np.where((enter < leave) & (enter > NEAR), enter, np.inf)


def _prism(o: Rays, d: Rays, half: Rays) -> Array:
    hx, hy, hz = half
    enter: Scalars = NEAR
    leave: Scalars = np.inf
    slope = 2 * hy / hz  # faces n·p <= reach: two gables, the base, two slopes that meet in the ridge at y = hy
    for n, reach in (((1, 0, 0), hx), ((-1, 0, 0), hx), ((0, -1, 0), hy), ((0, 1, slope), hy), ((0, 1, -slope), hy)):
        along = n[0] * d[0] + n[1] * d[1] + n[2] * d[2]
        t = (reach - (n[0] * o[0] + n[1] * o[1] + n[2] * o[2])) / along
        enter = np.where(along < 0, np.maximum(enter, t), enter)
        leave = np.where(along < 0, leave, np.minimum(leave, t))
    return np.where((enter < leave) & (enter > NEAR), enter, np.inf)


def _ellipsoid(o: Rays, d: Rays, radii: Rays) -> Array:
    (ox, oy, oz), (dx, dy, dz) = ([v / r for v, r in zip(vector, radii, strict=True)] for vector in (o, d))
    a, b = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz
    root = b * b - a * (ox * ox + oy * oy + oz * oz - 1)
    t = (-b - np.sqrt(root)) / a
    return np.where((root > 0) & (t > NEAR), t, np.inf)


def _frustum(o: Rays, d: Rays, half: Rays) -> Array:
    bottom, hy, top = half
    (ox, oy, oz), (dx, dy, dz) = o, d
    slope = (top - bottom) / (2 * hy)  # radius at height y: middle + slope * y
    radius = (top + bottom) / 2 + slope * oy
    a, b = dx * dx + dz * dz - (slope * dy) ** 2, ox * dx + oz * dz - slope * dy * radius
    root = np.sqrt(b * b - a * (ox * ox + oz * oz - radius * radius))
    t = (-b - root) / a
    side = np.where((np.abs(oy + t * dy) <= hy) & (t > NEAR), t, np.inf)
    t = (np.where(oy > 0, hy, -hy) - oy) / dy  # the cap on the ray's side
    rim = np.where(oy > 0, top, bottom)
    cap = np.where(((ox + t * dx) ** 2 + (oz + t * dz) ** 2 <= rim * rim) & (t > NEAR), t, np.inf)
    return np.fmin(side, cap)


_HIT = {PLANE: _plane, BOX: _box, PRISM: _prism, ELLIPSOID: _ellipsoid, FRUSTUM: _frustum}
