"""Procedural surface patterns: how much of a surface's second colour shows at each point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

PLAIN, CHECKER, STRIPES, PLANKS, BRICKS, TILES, NOISE, FOLIAGE, FACADE, BOOKS, GROUND = range(11)
_TABLE = np.random.default_rng(0).random(4096, dtype=np.float32)


def _hash(i: Array, j: Array | float = 0.0) -> Array:
    """A random number in 0..1 for each pair of whole numbers."""
    return _TABLE[(i * 73 + j * 1193).astype(np.int32) & 4095]


def _fraction(x: NDArray[np.floating]) -> tuple[Array, Array]:
    """The whole part and the rest."""
    whole = np.floor(x)
    return whole, x - whole


def noise(u: Array, v: Array) -> Array:
    """Smooth value noise in 0..1 with cells of size one."""
    (i, a), (j, b) = _fraction(u), _fraction(v)
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    cell = (i * 73 + j * 1193).astype(np.int32)
    low = _TABLE[cell & 4095] * (1 - a) + _TABLE[(cell + 73) & 4095] * a
    high = _TABLE[(cell + 1193) & 4095] * (1 - a) + _TABLE[(cell + 1266) & 4095] * a
    return low * (1 - b) + high * b


# Patterns: the share of the second colour at points [M] whose surface coordinates u and v are in units of the pattern's scale.
def _checker(u: Array, v: Array) -> Array:
    return np.mod(np.floor(u) + np.floor(v), 2)


def _stripes(u: Array, v: Array) -> Array:
    return np.mod(np.floor(u * 2), 2)


def _planks(u: Array, v: Array) -> Array:
    row, b = _fraction(v)
    piece = np.floor(u / 6 + _hash(row) * 5)
    return np.where(b < 0.07, 1, 0.55 * _hash(row, piece)) + 0.15 * noise(u, v * 9)


def _bricks(u: Array, v: Array) -> Array:
    row, b = _fraction(v * 2.4)
    piece, a = _fraction(u + 0.5 * np.mod(row, 2))
    return np.where((a < 0.07) | (b < 0.15), 1, 0.35 * _hash(row, piece))


def _tiles(u: Array, v: Array) -> Array:
    (i, a), (j, b) = _fraction(u), _fraction(v)
    return np.where((a < 0.06) | (b < 0.06), 1, 0.2 * _hash(i, j))


def _noise(u: Array, v: Array) -> Array:
    return 0.6 * noise(u, v) + 0.4 * noise(u * 3.1, v * 3.1)


def _foliage(u: Array, v: Array) -> Array:
    return 1.6 * noise(u * 2.3, v * 2.3) - 0.3


def _facade(u: Array, v: Array) -> Array:
    (i, a), (j, b) = _fraction(u), _fraction(v)
    return np.where((np.abs(a - 0.5) < 0.24) & (np.abs(b - 0.55) < 0.27), 0.75 + 0.25 * _hash(i, j), 0)


def _books(u: Array, v: Array) -> Array:
    column, a = _fraction(u * 9)
    row, b = _fraction(v)
    return np.where((b > 0.6 + 0.3 * _hash(column, row)) | (a < 0.1), 0, 0.2 + 0.8 * _hash(column, row + 7))


# kind -> (pattern over coordinates in units of the paint's scale, its mean, its smallest feature in those units)
_PATTERNS: dict[int, tuple[Callable[[Array, Array], Array], float, float]] = {
    CHECKER: (_checker, 0.5, 1.0),
    STRIPES: (_stripes, 0.5, 0.5),
    PLANKS: (_planks, 0.35, 0.5),
    BRICKS: (_bricks, 0.3, 0.3),
    TILES: (_tiles, 0.2, 0.3),
    NOISE: (_noise, 0.5, 0.4),
    FOLIAGE: (_foliage, 0.5, 0.4),
    FACADE: (_facade, 0.25, 0.6),
    BOOKS: (_books, 0.4, 0.15),
}


def mix(kinds: NDArray[np.intp], u: Array, v: Array, footprint: Array) -> Array:
    """How much of the second colour shows at points of surfaces.

    Args:
        kinds: [M] the texture of each point's surface.
        u: [M] surface coordinate in units of the pattern's scale.
        v: [M] the other one.
        footprint: [M] how far neighbouring pixels are apart on the surface, in the same units; patterns finer than that fade into their
            mean, as they would in a photograph, instead of flickering.

    Returns:
        [M] shares in 0..1.
    """
    out = np.zeros(len(kinds), np.float32)
    for kind, (pattern, mean, feature) in _PATTERNS.items():
        where = np.flatnonzero(kinds == kind)
        if len(where):
            contrast = np.clip(1.5 - footprint[where] / feature, 0, 1)
            out[where] = mean + contrast * (pattern(u[where], v[where]) - mean)
    return np.clip(out, 0, 1, out=out)
