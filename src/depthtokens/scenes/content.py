"""What a scene shows, in words and numbers: all that captions are made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

RENDERER_VERSION = 1  # names the pixels: raise it with every change that alters an image, a depth or a content
DEPTH_RANGE = {"indoor": (0.5, 10.0), "road": (2.0, 80.0)}  # metres
DEPTH_SCALE = {"indoor": 1000, "road": 256}  # 16-bit steps per metre; 80 m at 1000 would not fit

SPLIT_CODES = {"train": 0, "test": 1}

SIZES = ("very small", "small", "slightly small", "neither small nor large", "slightly large", "large", "very large")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.12, 0.10),
    "green": (0.15, 0.60, 0.18),
    "blue": (0.13, 0.28, 0.75),
    "yellow": (0.93, 0.82, 0.15),
    "orange": (0.93, 0.50, 0.10),
    "purple": (0.48, 0.18, 0.60),
    "pink": (0.93, 0.55, 0.68),
    "brown": (0.45, 0.28, 0.15),
    "white": (0.93, 0.93, 0.92),
    "grey": (0.52, 0.52, 0.53),
    "black": (0.10, 0.10, 0.11),
    "beige": (0.83, 0.74, 0.58),
    "turquoise": (0.15, 0.70, 0.68),
    "light blue": (0.55, 0.75, 0.92),
    "dark green": (0.08, 0.32, 0.14),
    "dark red": (0.48, 0.07, 0.09),
}


def scene_seed(seed: int, split: str, index: int) -> int:
    """The render seed of scene `index`: no two (seed, split, index) share one, so that no test scene is ever trained on."""
    return (seed << 33) | (SPLIT_CODES[split] << 32) | index


@dataclass(frozen=True)
class Thing:
    """A named, visible thing.

    Attributes:
        kind: its name in the catalogue of furniture or of outdoor things.
        colour: a name in `COLOURS`.
        size: index into `SIZES`, relative to others of its kind.
        material: a name in `builder.MATERIALS`.
        support: what it stands on or hangs from ("floor", "table", "wall", ...).
        position: "left", "middle" or "right" third of the image.
        distance: of its nearest visible point, in metres along the optical axis.
        mean: the same over all its visible points.
        pixels: how many of them are visible.
    """

    kind: str
    colour: str
    size: int
    material: str
    support: str
    position: str = "middle"
    distance: float = 0.0
    mean: float = 0.0
    pixels: int = 0


@dataclass(frozen=True)
class Content:
    """What is to be said about a scene.

    Attributes:
        domain: "indoor" or "road".
        place: kind of room or road.
        light: a phrase.
        surfaces: what the big surfaces are made of, as {"floor": "brown wooden planks", ...}.
        dimensions: width, length and height of a room, or the road's width, in metres.
        camera_height: in metres.
        things: what can be seen.
        layout: median depth in metres of the image's left, middle and right third, top and bottom half, and its overall median, 5 % and
            95 % points, over pixels that have depth.
    """

    domain: str
    place: str
    light: str
    surfaces: dict[str, str]
    dimensions: dict[str, float]
    camera_height: float
    things: list[Thing] = field(default_factory=list)
    layout: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Plain values, for one line of JSON."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Content:
        """The inverse of `to_json`."""
        return Content(**{**values, "things": [Thing(**thing) for thing in values["things"]]})
