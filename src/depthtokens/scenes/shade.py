"""Surfaces under light: where visible points lie, what colour they are, and how much light reaches them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

from . import textures
from .solids import BOX, ELLIPSOID, FRUSTUM, PLANE, PRISM, Array, Solid, Vec, hit
from .world import Light


@dataclass(frozen=True)
class Points:
    """Visible points.

    Attributes:
        position: [3, M] in metres.
        normal: [3, M] unit vectors towards the viewer.
        colour: [3, M] linear RGB.
        emit: [M] own light in 0..1.
        depth: [M] in metres.
    """

    position: Array
    normal: Array
    colour: Array
    emit: Array
    depth: Array


def surface_points(
    solids: list[Solid],
    eye: Vec,
    rays: Array,
    depth: Array,
    seen: NDArray[np.intp],
    pixel: float,
    ground: Callable[[Array, Array, Array], Array] | None,
) -> Points:
    """Where rays meet solids, and what the surface is like there.

    Args:
        solids: all of the world's.
        eye: where the rays start, in metres.
        rays: [3, M] directions.
        depth: [M] ray parameters of the points, in metres.
        seen: [M] which solid each ray meets.
        pixel: a pixel's width in metres at a distance of one metre.
        ground: the colour of paint of texture GROUND, as `World.ground`.
    """
    shape, texture = np.array([[s.shape, s.paint.texture] for s in solids], np.intp).T
    rows = [(*s.centre, cos(s.yaw), sin(s.yaw), *s.half, s.paint.scale, s.paint.emit, *s.paint.colour, *s.paint.second) for s in solids]
    table = np.array(rows, np.float32).T
    x, y, z = position = np.array(eye, np.float32)[:, None] + rays * depth
    cx, cy, cz, c, s, hx, hy, hz, scale, emit = table[:10].take(seen, axis=1)
    x, y, z = x - cx, y - cy, z - cz
    x, z = c * x - s * z, s * x + c * z
    normal = np.zeros_like(position)
    u, v = x.copy(), y + hy
    kinds = shape[seen]
    for kind, face in _FACES.items():
        where = np.flatnonzero(kinds == kind)
        if len(where):
            normal[:, where], u[where], v[where] = face((x[where], y[where], z[where]), (hx[where], hy[where], hz[where]))
    normal[0], normal[2] = c * normal[0] + s * normal[2], c * normal[2] - s * normal[0]
    facing = np.einsum("im,im->m", normal, rays)
    normal *= -np.sign(facing)
    footprint = depth * np.float32(pixel) / np.maximum(np.abs(facing), 0.12)
    patterns = texture[seen]
    share = textures.mix(patterns, u / scale, v / scale, footprint / scale)
    first, second = table[10:13].take(seen, axis=1), table[13:16].take(seen, axis=1)
    colour = first + share * (second - first)
    earth = np.flatnonzero(patterns == textures.GROUND)
    if ground is not None and len(earth):
        colour[:, earth] = ground(position[0, earth], position[2, earth], footprint[earth])
    return Points(position, normal, colour * colour, emit, depth)


# Of points [M] on a solid, in its own frame: their normals [3, M], of either sign, and surface coordinates u and v in metres.
def _plane_face(p: tuple[Array, ...], n: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    x, y, z = p
    flat, side = np.abs(n[1]) > 0.7, np.abs(n[0]) > 0.7
    return np.stack(n), np.where(side, z, x), np.where(flat, z, y)


def _box_face(p: tuple[Array, ...], half: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    x, y, z = p
    qx, qy, qz = (np.abs(v) / h for v, h in zip(p, half, strict=True))
    top = (qy >= qx) & (qy >= qz)
    side = ~top & (qx >= qz)
    normal = np.stack([side * np.sign(x), top * np.sign(y), ~(top | side) * np.sign(z)]).astype(np.float32)
    return normal, np.where(side, z, x), np.where(top, z, y + half[1])


def _prism_face(p: tuple[Array, ...], half: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    (x, y, z), (hx, hy, hz) = p, half
    gable = np.abs(x) > hx * 0.9995
    length = np.sqrt(hz * hz + 4 * hy * hy)
    normal = np.stack([gable * np.sign(x), ~gable * hz / length, ~gable * np.sign(z) * 2 * hy / length])
    return normal, np.where(gable, z, x), y + hy


def _ellipsoid_face(p: tuple[Array, ...], radii: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    normal = np.stack([v / (r * r) for v, r in zip(p, radii, strict=True)])
    normal /= np.sqrt(np.einsum("im,im->m", normal, normal))
    return normal, np.arctan2(p[0], p[2]) * radii[0], p[1] + 0.3 * p[0]


def _frustum_face(p: tuple[Array, ...], half: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    (x, y, z), (bottom, hy, top) = p, half
    cap = np.abs(y) > hy * 0.9995
    slope = (top - bottom) / (2 * hy)
    radius = np.sqrt(x * x + z * z) + 1e-6
    length = np.sqrt(1 + slope * slope)
    normal = np.stack([~cap * x / radius / length, np.where(cap, np.sign(y), -slope / length), ~cap * z / radius / length])
    return normal, np.where(cap, x, np.arctan2(x, z) * np.maximum(bottom, top)), np.where(cap, z, y + hy)


_FACES = {PLANE: _plane_face, BOX: _box_face, PRISM: _prism_face, ELLIPSOID: _ellipsoid_face, FRUSTUM: _frustum_face}


def lit(
    points: Points,
    solids: list[Solid],
    lights: list[Light],
    ambient: Vec,
    corners: tuple[float, ...],
    flat: NDArray[np.intp],
    size: tuple[int, int],
) -> Array:
    """The light that leaves points towards the viewer.

    Args:
        points: M visible points.
        solids: all of the world's, which may cast shadows.
        lights: the first casts shadows.
        ambient: RGB of the light from everywhere.
        corners: limits of the room, as `World.corners`.
        flat: [M] numbers of the points' pixels, row by row.
        size: (height, width) of the image in pixels.

    Returns:
        Linear RGB [3, M].
    """
    crease = np.ones_like(points.depth)  # corners of a room and the foot of a wall see less of the light around them
    limits = corners or (None, None, 0.0, None, None, None)
    for axis in range(3):
        for limit in limits[2 * axis : 2 * axis + 2]:
            if limit is not None:
                away = np.abs(points.position[axis] - np.float32(limit))
                crease *= 1 - 0.42 * np.exp(away * np.float32(-1 / 0.3)) * (1 - np.abs(points.normal[axis]))
    # light from everywhere comes a little more from above, and a point turned to the viewer gets some of it back
    energy = np.array(ambient, np.float32)[:, None] * (crease * (0.85 + 0.15 * points.normal[1]))
    for number, light in enumerate(lights):
        x, y, z = points.normal
        if light.reach is None:
            strength = x * light.place[0] + y * light.place[1] + z * light.place[2]
        else:
            lx, ly, lz = np.array(light.place, np.float32)[:, None] - points.position
            square = lx * lx + ly * ly + lz * lz
            strength = (x * lx + y * ly + z * lz) / np.sqrt(square) / (1 + square / np.float32(light.reach**2))
        strength = np.maximum(strength, 0)
        if number == 0:
            strength *= _shadow(points, solids, light, flat, size)
        energy += np.array(light.colour, np.float32)[:, None] * (strength * (0.5 + 0.5 * crease))
    energy += points.emit * (1.1 - energy)
    energy *= points.colour
    return energy


def _shadow(points: Points, solids: list[Solid], light: Light, flat: NDArray[np.intp], size: tuple[int, int]) -> Array:
    """Share of a light that arrives at each point [M], from secondary rays for every second pixel in every second row."""
    height, width = size
    coarse = np.flatnonzero(((flat // width) % 2 == 0) & (flat % width % 2 == 0))
    # start a little off the surface, or the surface would shadow itself
    lift = np.float32(0.004) * points.depth[coarse] + np.float32(0.005)
    x, y, z = points.position[:, coarse] + points.normal[:, coarse] * lift
    clear = np.ones(len(coarse), bool)
    place = np.array(light.place, np.float32)
    if light.reach is None:
        right = np.cross(place, (0.3, 1, 0.1)).astype(np.float32)
        right /= np.linalg.norm(right)
        up = np.cross(place, right)
        a, b = (x * w[0] + y * w[1] + z * w[2] for w in (right, up))
    else:
        away = np.stack([x, y, z]) - place[:, None]
        unit = away / np.linalg.norm(away, axis=0)
    for solid in solids:
        if solid.shape == PLANE or solid.paint.emit > 0.3:
            continue
        centre, radius = np.array(solid.centre, np.float32), float(np.linalg.norm(solid.extent()))
        # only points whose way to the light passes the solid's bounding sphere need an exact answer
        if light.reach is None:
            near = (a - right @ centre) ** 2 + (b - up @ centre) ** 2 < radius * radius
        else:
            gap = float(np.linalg.norm(centre - place))
            if gap <= radius:
                continue
            cone = np.sqrt(1 - (radius / gap) ** 2)
            toward = (centre - place) / gap
            near = unit[0] * toward[0] + unit[1] * toward[1] + unit[2] * toward[2] > cone
        some = np.flatnonzero(near & clear)
        if not len(some):
            continue
        if light.reach is None:
            blocked = np.isfinite(hit(solid, (x[some], y[some], z[some]), light.place))
        else:  # from the lamp to the point: t = 1 is the point
            blocked = hit(solid, light.place, (away[0, some], away[1, some], away[2, some])) < 1
        clear[some[blocked]] = False
    grid = np.ones(((height + 1) // 2, (width + 1) // 2), np.float32)
    grid[flat[coarse] // width // 2, flat[coarse] % width // 2] = clear
    return _enlarge(grid, size).ravel()[flat]


def _enlarge(grid: Array, size: tuple[int, int]) -> Array:
    """Twice the size, with soft edges."""
    padded = np.pad(grid, 1, mode="edge")
    across = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    soft: Array = ((across[:-2] + 2 * across[1:-1] + across[2:]) / 4).astype(np.float32)
    return soft.repeat(2, 0).repeat(2, 1)[: size[0], : size[1]]
