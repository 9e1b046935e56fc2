"""Puts named things into a world: sizes, colours and paints drawn from a generator."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, log, sin
from typing import TypeVar

import numpy as np

from . import pieces, textures
from .content import COLOURS, SIZES, Thing
from .pieces import Piece
from .solids import FRUSTUM, Paint, Solid, Vec

MATERIALS = {  # name -> texture, pattern size in metres, how far the second colour is from the first (0..1)
    "plain": (textures.PLAIN, 1.0, 0.0),
    "wooden": (textures.PLANKS, 0.14, 0.35),
    "striped": (textures.STRIPES, 0.16, 0.8),
    "checked": (textures.CHECKER, 0.12, 0.8),
    "spotted": (textures.NOISE, 0.12, 0.7),
    "brick": (textures.BRICKS, 0.25, 0.6),
    "tiled": (textures.TILES, 0.3, 0.6),
    "windowed": (textures.FACADE, 2.8, 1.0),
    "carpet": (textures.NOISE, 0.06, 0.3),
    "plaster": (textures.NOISE, 0.7, 0.12),
    "wallpaper": (textures.STRIPES, 0.3, 0.18),
}
Draw = np.random.Generator
T = TypeVar("T")


def pick(rng: Draw, options: Sequence[T]) -> T:
    """One of the options, each as likely as the next."""
    return options[int(rng.integers(len(options)))]


def shade_of(rng: Draw, name: str, spread: float = 0.05) -> Vec:
    """A shade that still goes by that colour's name."""
    r, g, b = np.clip(np.array(COLOURS[name]) * rng.uniform(0.88, 1.08) + rng.uniform(-spread, spread, 3), 0.02, 0.98)
    return float(r), float(g), float(b)


def paint_of(rng: Draw, colour: Vec, material: str, scale: float = 1.0) -> Paint:
    """A surface of a colour and a material.

    Args:
        rng: what its pattern's size is drawn from.
        colour: sRGB in 0..1.
        material: a name in `MATERIALS`.
        scale: how much coarser the pattern is than usual.
    """
    texture, size, contrast = MATERIALS[material]
    if texture == textures.FACADE:
        other = (0.16, 0.19, 0.24)
    else:
        bright = sum(colour) > 1.2
        r, g, b = (c * (1 - contrast) if bright else c + (1 - c) * 0.8 * contrast for c in colour)
        other = (r, g, b)
    return Paint(texture, colour, other, size * scale * float(rng.uniform(0.8, 1.3)))


class Builder:
    """Collects the solids and the named things of one scene.

    Args:
        rng: what sizes, colours and paints are drawn from.
        catalogue: the kinds that this scene may hold.

    Attributes:
        solids: what was put there so far.
        things: the named things among it.
    """

    def __init__(self, rng: Draw, catalogue: dict[str, Piece]) -> None:
        self.rng = rng
        self.catalogue = catalogue
        self.solids: list[Solid] = []
        self.things: list[Thing] = []

    def measure(self, kind: str) -> tuple[Vec, int]:
        """A (width, height, depth) in metres for one of a kind, and its size as an index into `SIZES`."""
        piece = self.catalogue[kind]
        level = min(1.0, max(-1.0, float(self.rng.normal(0, 0.5))))
        factor = piece.vary**level
        w, h, d = (s * factor * u for s, u in zip(piece.size, self.rng.uniform(0.93, 1.08, 3).tolist(), strict=True))
        # kinds that hardly vary are hardly ever called large or small
        spread = min(1.0, log(piece.vary) / log(1.8))
        return (w, h, d), min(len(SIZES) - 1, max(0, round(3 + 3.4 * level * spread)))

    def add(self, kind: str, foot: Vec, yaw: float, support: str, size: Vec, level: int, colour: str = "") -> int:
        """Put one of a kind into the scene.

        Args:
            kind: a name in the catalogue.
            foot: the centre of its foot, in metres.
            yaw: where its front is turned to, in radians.
            support: what it stands on or hangs from.
            size: (width, height, depth) in metres.
            level: its size as an index into `SIZES`.
            colour: a name in `COLOURS`, "" = draw one.

        Returns:
            Its index among the things.
        """
        rng, piece = self.rng, self.catalogue[kind]
        colour = colour or pick(rng, piece.colours or tuple(COLOURS))
        material = pick(rng, piece.materials)
        own, index = shade_of(rng, colour), len(self.things)
        self.things.append(Thing(kind, colour, level, material, support))
        paints = self._paints(own, material, min(1.0, max(size) / 0.5) if material != "windowed" else 1.0)
        (w, h, d), c, s = size, cos(yaw), sin(yaw)
        for part in piece.parts:
            (px, py, pz), (hx, hy, hz) = part.centre, part.half
            x, z = px * w / 2, pz * d / 2
            half = (hx * w / 2, hy * h, hz * w / 2 if part.shape == FRUSTUM else hz * d / 2)
            centre = (foot[0] + c * x + s * z, foot[1] + py * h, foot[2] + c * z - s * x)
            self.solids.append(Solid(part.shape, centre, half, paints[part.paint], yaw, index))
        return index

    def _paints(self, own: Vec, material: str, scale: float) -> dict[int, Paint]:
        """What the parts of one thing are painted with."""
        rng = self.rng
        other = shade_of(rng, pick(rng, tuple(COLOURS)))
        leaf: Vec = (own[0] * 0.35, own[1] * 0.4, own[2] * 0.3)
        glow = pick(rng, ((0.75, 0.86, 0.97), (0.9, 0.93, 0.95), (0.55, 0.72, 0.95)))
        return {
            pieces.MAIN: paint_of(rng, own, material, scale),
            pieces.SECOND: Paint(colour=other),
            pieces.DARK: Paint(colour=(0.09, 0.10, 0.12)),
            pieces.WHITE: Paint(colour=(0.92, 0.92, 0.90)),
            pieces.METAL: Paint(colour=(0.66, 0.68, 0.70)),
            pieces.GLASS: Paint(textures.NOISE, glow, (0.75, 0.85, 0.8), 0.5, emit=0.6),
            pieces.LAMP: Paint(colour=(1.0, 0.95, 0.78), emit=0.85),
            pieces.LEAVES: Paint(textures.FOLIAGE, own, leaf, max(0.12, 0.4 * scale)),
            pieces.BOOKS: Paint(textures.BOOKS, (0.08, 0.06, 0.05), other, 0.35),
            pieces.WALL: paint_of(rng, own, material),
            pieces.BARK: Paint(textures.NOISE, (0.42, 0.29, 0.18), (0.28, 0.19, 0.12), 0.1),
            pieces.SKIN: Paint(colour=pick(rng, ((0.95, 0.78, 0.65), (0.75, 0.55, 0.4), (0.45, 0.3, 0.2)))),
            pieces.SCREEN: Paint(textures.NOISE, (0.2, 0.4, 0.65), (0.55, 0.75, 0.85), 0.2, emit=0.35),
        }
