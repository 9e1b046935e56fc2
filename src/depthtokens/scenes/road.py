"""Roads of 2 to 80 metres: asphalt with markings, what stands beside it, what drives on it, and a sky without depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import atan, cos, pi, radians, sin

import numpy as np

from . import textures
from .builder import Builder, Draw, pick
from .content import Content
from .outdoors import OUTDOORS
from .solids import PLANE, Array, Paint, Solid, Vec
from .world import Camera, Light, World

GROUNDS: dict[str, tuple[Vec, Vec]] = {
    "grass": ((0.30, 0.50, 0.18), (0.22, 0.38, 0.12)),
    "dry grass": ((0.62, 0.57, 0.30), (0.48, 0.44, 0.22)),
    "sand": ((0.82, 0.72, 0.52), (0.72, 0.61, 0.42)),
    "snow": ((0.93, 0.95, 0.97), (0.84, 0.87, 0.92)),
    "earth": ((0.45, 0.34, 0.24), (0.35, 0.26, 0.18)),
    "paving": ((0.66, 0.64, 0.61), (0.56, 0.54, 0.52)),
}
# light -> sky overhead, sky at the horizon, sun colour, light from everywhere, clouds 0..1
LIGHTS: dict[str, tuple[Vec, Vec, Vec, Vec, float]] = {
    "clear sky": ((0.22, 0.45, 0.85), (0.70, 0.83, 0.95), (0.95, 0.90, 0.78), (0.34, 0.38, 0.45), 0.15),
    "sunny": ((0.30, 0.55, 0.90), (0.82, 0.90, 0.97), (1.10, 1.02, 0.85), (0.36, 0.38, 0.42), 0.5),
    "cloudy": ((0.62, 0.67, 0.74), (0.86, 0.88, 0.90), (0.40, 0.40, 0.40), (0.50, 0.52, 0.55), 0.9),
    "overcast": ((0.72, 0.74, 0.76), (0.85, 0.86, 0.87), (0.12, 0.12, 0.12), (0.62, 0.63, 0.65), 0.4),
    "foggy": ((0.80, 0.82, 0.84), (0.86, 0.87, 0.88), (0.15, 0.15, 0.14), (0.60, 0.62, 0.63), 0.1),
    "sunset": ((0.35, 0.36, 0.60), (0.98, 0.66, 0.40), (1.00, 0.60, 0.30), (0.36, 0.32, 0.36), 0.6),
    "dusk": ((0.16, 0.18, 0.36), (0.55, 0.42, 0.50), (0.25, 0.20, 0.25), (0.24, 0.24, 0.32), 0.4),
}


@dataclass(frozen=True)
class Street:
    """A kind of road.

    Attributes:
        lanes: how many it may have.
        grounds: what may lie beside it, names in `GROUNDS`.
        edge: kinds of things that stand near its edge.
        back: kinds of things that stand further off.
        setback: from how many to how many metres off the edge those stand.
        traffic: how many vehicles it has at most.
        pavement: whether it has one.
    """

    lanes: tuple[int, ...]
    grounds: tuple[str, ...]
    edge: tuple[str, ...]
    back: tuple[str, ...]
    setback: tuple[float, float]
    traffic: int
    pavement: bool = False


STREETS: dict[str, Street] = {
    "city street": Street((2, 2, 3, 4), ("paving",), ("street lamp", "traffic light", "sign", "person", "person", "bin", "bench", "car",
        "tree", "post box"), ("building", "building", "building", "house", "tower"), (1.5, 7), 5, True),
    "suburban street": Street((2,), ("grass", "grass", "paving", "snow"), ("tree", "hedge", "fence", "street lamp", "bush", "car",
        "person", "post box", "wall"), ("house", "house", "house", "tree", "shed"), (3, 12), 3, True),
    "village road": Street((1, 2), ("grass", "earth", "grass", "snow"), ("wall", "fence", "tree", "bush", "person", "barrel", "crate",
        "bench", "sign"), ("house", "barn", "house", "shed", "tree", "tower"), (2.5, 14), 2),
    "country road": Street((1, 2), ("grass", "dry grass", "grass", "snow", "earth"), ("fence", "bush", "tree", "pole", "pole", "rock",
        "sign", "hedge"), ("barn", "tree", "tree", "hill", "house", "hill"), (6, 35), 2),
    "motorway": Street((3, 4, 6), ("grass", "dry grass", "paving"), ("sign", "street lamp", "wall", "bush", "pole"), ("tree", "hill",
        "building", "tree", "barn"), (8, 40), 7),
    "forest road": Street((1, 2), ("grass", "earth", "snow"), ("fir tree", "tree", "fir tree", "bush", "rock"), ("fir tree", "tree",
        "fir tree", "tree"), (1, 14), 1),
    "desert road": Street((1, 2), ("sand", "dry grass"), ("rock", "pole", "sign", "rock", "barrel", "bush"), ("rock", "hill", "shed",
        "hill"), (4, 40), 1),
    "building site": Street((1, 2), ("earth", "sand"), ("traffic cone", "traffic cone", "barrel", "crate", "person", "fence", "sign",
        "truck"), ("shed", "building", "truck", "wall"), (3, 16), 2),
    "car park": Street((4, 6), ("paving", "grass"), ("car", "car", "car", "van", "street lamp", "tree", "person", "traffic cone"),
        ("building", "house", "tree", "wall"), (8, 30), 5),
}  # fmt: skip


@dataclass(frozen=True)
class Lane:
    """The road's course.

    Attributes:
        bend: its centre lies at x = bend * z² / 2 + slant * z, in metres.
        slant: see bend.
        half: half its width in metres.
        lanes: how many it has.
    """

    bend: float
    slant: float
    half: float
    lanes: int

    def centre(self, z: float) -> float:
        """The x in metres of the middle of the road."""
        return self.bend * z * z / 2 + self.slant * z

    def heading(self, z: float) -> float:
        """Yaw of the road in radians."""
        return atan(self.bend * z + self.slant)


def _ground(rng: Draw, lane: Lane, ground: str, pavement: float) -> Callable[[Array, Array, Array], Array]:
    """The colour of the earth: asphalt with lines, perhaps a pavement, and `ground` beside them; sRGB [3, M] for x, z, footprint [M]."""
    grey = float(rng.uniform(0.26, 0.46))
    asphalt = np.array((grey, grey, grey * float(rng.uniform(0.97, 1.08))), np.float32)
    first, second = (np.array(c, np.float32) * np.float32(rng.uniform(0.9, 1.08)) for c in GROUNDS[ground])
    paint = np.array(pick(rng, ((0.92, 0.92, 0.9), (0.92, 0.92, 0.9), (0.92, 0.78, 0.25))), np.float32)
    dashes, edges, period = rng.random() < 0.85, rng.random() < 0.7, float(rng.uniform(5, 10))
    slab = float(rng.uniform(0.6, 1.2))

    def colour(x: Array, z: Array, footprint: Array) -> Array:
        across = x - (lane.bend / 2 * z + lane.slant) * z
        away = np.abs(across)
        fade = np.clip(1.6 - footprint / 0.35, 0, 1)
        grain = 0.5 + fade * (textures.noise(x * 2.7, z * 2.7) - 0.5)
        patches = 0.6 * textures.noise(x * 0.23 + 9, z * 0.23) + 0.4 * grain
        rgb = first[:, None] + patches * (second - first)[:, None]
        if ground == "paving":
            seam = (np.mod(x, slab) < 0.05) | (np.mod(z, slab) < 0.05)
            rgb -= 0.14 * seam * np.clip(1.5 - footprint / 0.12, 0, 1)
        if pavement:
            kerb = np.flatnonzero(away < lane.half + pavement)
            line = np.mod(z[kerb], slab) < 0.06
            rgb[:, kerb] = np.float32(0.68) - (away[kerb] < lane.half + 0.18) * 0.14 - line * fade[kerb] * 0.1
        road = np.flatnonzero(away < lane.half)
        tarmac = asphalt[:, None] * (0.88 + 0.24 * patches[road])
        s, zr, width = across[road], z[road], np.maximum(footprint[road], 0.02)
        lines = [(-lane.half + 0.25, False), (lane.half - 0.25, False)] if edges else []
        lines += [(-lane.half + 2 * lane.half * i / lane.lanes, True) for i in range(1, lane.lanes)] if dashes else []
        for middle, dashed in lines:
            # a line thinner than a pixel keeps its share of that pixel
            cover = np.clip((0.08 - np.abs(s - middle)) / width + 0.5, 0, 1) * np.minimum(1, 0.16 / width)
            if dashed:
                cover *= np.mod(zr, period) < 0.5 * period
            tarmac += cover * (paint[:, None] - tarmac)
        rgb[:, road] = tarmac
        return np.clip(rgb, 0, 1)

    return colour


def _sky(rng: Draw, top: Vec, low: Vec, clouds: float) -> Callable[[Array], Array]:
    """Sky colours, linear RGB [3, M] for ray directions [3, M]: a gradient with clouds."""
    high, horizon = (np.array(c, np.float32) ** 2 for c in (top, low))
    shift, size = float(rng.uniform(0, 50)), float(rng.uniform(2.5, 6))

    def colour(rays: Array) -> Array:
        height = np.clip(rays[1] / np.sqrt((rays * rays).sum(0)), 0, 1)
        rgb = horizon[:, None] + np.sqrt(height) * (high - horizon)[:, None]
        reach = 1 / (height + 0.12)
        u, v = rays[0] * reach * size / 4 + shift, rays[2] * reach * size / 4
        puffs = 0.6 * textures.noise(u, v) + 0.4 * textures.noise(u * 2.7, v * 2.7)
        cover = clouds * np.clip((puffs - 0.45) * 4, 0, 1) * np.clip(height * 8, 0, 1)
        return rgb + cover * (np.maximum(horizon, 0.6)[:, None] - rgb)

    return colour


def _clear(taken: list[tuple[float, float, float]], camera: Camera, x: float, z: float, radius: float) -> bool:
    """Whether a round footprint keeps off the camera and what is already there; takes the place if so."""
    cx, _, cz = camera.position
    if (x - cx) ** 2 + (z - cz) ** 2 < (radius + 1.6) ** 2 or any((x - a) ** 2 + (z - b) ** 2 < (radius + r) ** 2 for a, b, r in taken):
        return False
    taken.append((x, z, radius))
    return True


def _populate(builder: Builder, street: Street, lane: Lane, camera: Camera) -> None:
    """Put vehicles on the road and things beside it."""
    rng = builder.rng
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(0, street.traffic + 1))):
        kind = pick(rng, ("car", "car", "car", "van", "truck", "bus", "motorcycle", "car"))
        size, level = builder.measure(kind)
        z = 3.5 * (80 / 3.5) ** float(rng.random()) + size[2] / 2
        slot = (int(rng.integers(lane.lanes)) + 0.5) / lane.lanes * 2 - 1
        x = lane.centre(z) + slot * lane.half * (1 if lane.lanes > 1 else 0)
        yaw = lane.heading(z) + (0.0 if slot >= 0 else pi) + float(rng.normal(0, 0.04))
        # length counts less than width, so that a queue can form
        if _clear(taken, camera, x, z, 0.4 * size[2]):
            builder.add(kind, (x, 0, z), yaw, "road", size, level)
    crowd = float(rng.uniform(0.3, 1.0))
    for kinds, count, gap in ((street.edge, 20, (0.5, 2.6)), (street.back, 24, street.setback)):
        for _ in range(int(count * crowd * float(rng.uniform(0.6, 1.1)))):
            kind, side = pick(rng, kinds), int(rng.choice((-1, 1)))
            size, level = builder.measure(kind)
            z = 2.2 * (90 / 2.2) ** float(rng.random()) + size[2] / 3
            z = z if kind != "hill" else z + 60
            sideways = kind in ("wall", "fence", "hedge", "house", "building", "barn", "shed", "street lamp", "bench")
            reach = size[2] / 2 if sideways or kind in ("sign", "traffic light") else size[0] / 2
            x = lane.centre(z) + side * (lane.half + reach + float(rng.uniform(*gap)))
            if kind in ("sign", "traffic light"):
                yaw = pi + lane.heading(z)
            elif sideways:  # their fronts look at the road
                yaw = lane.heading(z) - side * pi / 2
            else:
                yaw = lane.heading(z) + (0.0 if side > 0 else pi) + float(rng.normal(0, 0.1))
            room = 0.45 * max(size[0], size[2]) if kind not in ("tree", "fir tree", "bush") else 0.3 * size[0]
            if _clear(taken, camera, x, z, room):
                builder.add(kind, (x, 0, z), yaw, "roadside", size, level)
    for _ in range(int(rng.integers(1, 5))):  # whichever way the camera looks, something is there
        kind = pick(rng, street.edge if rng.random() < 0.6 else street.back)
        size, level = builder.measure(kind)
        angle, away = camera.yaw + float(rng.uniform(-0.45, 0.45)) * camera.view, 3.0 * 12 ** float(rng.random()) + size[2] / 2
        x, z = camera.position[0] + away * sin(angle), away * cos(angle)
        if abs(x - lane.centre(z)) > lane.half + size[0] / 2 and kind != "hill" and _clear(taken, camera, x, z, size[0] / 2):
            builder.add(kind, (x, 0, z), angle + pi + float(rng.normal(0, 0.5)), "roadside", size, level)


def build(rng: Draw) -> World:
    """A random road."""
    name = pick(rng, tuple(STREETS))
    street = STREETS[name]
    lanes = pick(rng, street.lanes)
    lane = Lane(float(rng.normal(0, 0.0022)), float(rng.normal(0, 0.05)), lanes * float(rng.uniform(2.7, 3.8)) / 2, lanes)
    eye = float(np.exp(rng.normal(np.log(1.7), 0.42)))
    side = float(rng.uniform(-1, 1)) * (lane.half + (1.5 if street.pavement or rng.random() < 0.3 else -0.6))
    # mostly along the road; at times across it, at whatever stands there
    yaw = float(rng.normal(0, 0.16)) if rng.random() < 0.78 else float(rng.choice((-1, 1)) * rng.uniform(0.45, 1.2))
    pitch = radians(float(rng.normal(-2.5 - 2 * (eye - 1.6), 6)))
    camera = Camera((side, eye, 0.0), yaw, pitch, radians(float(rng.normal(0, 1))), radians(float(rng.uniform(52, 72))))
    builder = Builder(rng, OUTDOORS)
    builder.solids.append(Solid(PLANE, (0, 0, 0), (0, 1, 0), Paint(textures.GROUND)))
    _populate(builder, street, lane, camera)

    light = pick(rng, (*LIGHTS, "clear sky", "sunny", "cloudy"))
    top, low, sun, ambient, clouds = LIGHTS[light]
    height, around = radians(float(rng.uniform(8, 25) if light in ("sunset", "dusk") else rng.uniform(25, 65))), float(rng.uniform(-pi, pi))
    toward = (cos(height) * sin(around), sin(height), cos(height) * cos(around))
    reach = float(rng.uniform(35, 80)) if light == "foggy" else float(rng.uniform(120, 320))
    ground = pick(rng, street.grounds)
    shader = _ground(rng, lane, ground, float(rng.uniform(1.2, 3)) if street.pavement else 0.0)
    dimensions = {"road width": round(2 * lane.half, 1), "lanes": lanes, "bend": round(lane.bend, 4)}
    content = Content("road", name, light, {"ground": ground}, dimensions, round(eye, 2), builder.things)
    haze = (low[0] ** 2, low[1] ** 2, low[2] ** 2)
    return World(camera, content, builder.solids, [Light(toward, sun)], ambient, _sky(rng, top, low, clouds), (haze, reach), shader)
