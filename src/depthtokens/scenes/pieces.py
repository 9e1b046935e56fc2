"""How named things are written down as data: each is a few solids in a box of one by one by one."""

from __future__ import annotations

from dataclasses import dataclass

from .solids import BOX, ELLIPSOID, FRUSTUM, PRISM

# What a part is painted with: the thing's own colour and material, or one of these
MAIN, SECOND, DARK, WHITE, METAL, GLASS, LAMP, LEAVES, BOOKS, WALL, BARK, SKIN, SCREEN = range(13)


@dataclass(frozen=True)
class Part:
    """One of the solids that a piece is made of.

    Attributes:
        shape: see `solids.Solid`.
        centre: x in half widths of the piece, y in heights above its foot, z in half depths.
        half: half sizes in the same units.
        paint: MAIN, SECOND, ...
    """

    shape: int
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    paint: int


@dataclass(frozen=True)
class Piece:
    """A kind of thing, its back at -z.

    Attributes:
        size: usual (width, height, depth) in metres.
        vary: how far sizes vary, a factor.
        parts: its solids.
        materials: what it may be made of, names in `builder.MATERIALS`.
        colours: names of colours it may have, empty = any.
    """

    size: tuple[float, float, float]
    vary: float
    parts: tuple[Part, ...]
    materials: tuple[str, ...] = ("plain",)
    colours: tuple[str, ...] = ()


def box(x: float, y: float, z: float, hx: float, hy: float, hz: float, paint: int = MAIN) -> Part:
    """A box; numbers as `Part` has them: its centre, its half sizes."""
    return Part(BOX, (x, y, z), (hx, hy, hz), paint)


def roof(x: float, y: float, z: float, hx: float, hy: float, hz: float, paint: int = SECOND) -> Part:
    """A gable roof, its ridge along x; numbers as of a box."""
    return Part(PRISM, (x, y, z), (hx, hy, hz), paint)


def ball(x: float, y: float, z: float, hx: float, hy: float, hz: float, paint: int = MAIN) -> Part:
    """An ellipsoid; numbers as of a box, with radii for half sizes."""
    return Part(ELLIPSOID, (x, y, z), (hx, hy, hz), paint)


def cone(y: float, bottom: float, hy: float, top: float, paint: int = MAIN, x: float = 0, z: float = 0) -> Part:
    """A cylinder or cone, in the units of `Part`.

    Args:
        y: height of its middle.
        bottom: radius at its foot, in half widths.
        hy: half its height.
        top: radius at its top, in half widths.
        paint: MAIN, SECOND, ...
        x: of its axis.
        z: of its axis.
    """
    return Part(FRUSTUM, (x, y, z), (bottom, hy, top), paint)


def legs(top: float, x: float = 0.9, z: float = 0.86, thick: float = 0.06, paint: int = MAIN) -> tuple[Part, ...]:
    """Four legs, in the units of `Part`.

    Args:
        top: how high they reach.
        x: how far they stand from the middle along x.
        z: how far they stand from the middle along z.
        thick: half their thickness.
        paint: MAIN, SECOND, ...
    """
    return tuple(box(sx * x, top / 2, sz * z, thick, top / 2, thick * 1.3, paint) for sx in (-1, 1) for sz in (-1, 1))


def wheels(*places: float) -> tuple[Part, ...]:
    """A pair of wheels at each place along a vehicle."""
    return tuple(ball(side * 0.86, 0.2, z, 0.14, 0.2, 0.15, DARK) for z in places for side in (-1, 1))
