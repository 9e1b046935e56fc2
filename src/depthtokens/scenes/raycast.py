"""From a seed to an image with exact depth: ray casting of a few dozen solids in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import cos, sin, tan

import numpy as np
from numpy.typing import NDArray

from .content import Content
from .shade import Light, lit, surface_points
from .solids import PLANE, Array, Solid, Vec, hit

FAR = 400.0  # metres; what lies beyond has no depth
VISIBLE = 1 / 1500  # share of the image that a thing must cover to be named


@dataclass(frozen=True)
class Camera:
    """A pinhole. position in metres; yaw (to the right), pitch (up), roll and the horizontal field of view in radians."""

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
        """Focal length in pixels."""
        return width / 2 / tan(self.view / 2)

    def rays(self, size: tuple[int, int]) -> Array:
        """[3, H, W] directions in the world, one metre long along the optical axis: a ray's parameter is the depth in metres."""
        height, width = size
        f = self.focal(width)
        x = ((np.arange(width) + 0.5 - width / 2) / f).astype(np.float32)
        y = ((height / 2 - np.arange(height) - 0.5) / f).astype(np.float32)
        r = self.rotation()[:, :, None, None]
        return r[:, 0] * x[None, None, :] + r[:, 1] * y[None, :, None] + r[:, 2]


@dataclass
class World:
    """Everything a picture is taken of.

    content: as planned; `render` adds what turned out to be visible. lights: the first casts shadows. ambient: RGB light from everywhere.
    sky: ray directions [3, M] -> RGB [3, M] linear. haze: RGB and the distance in metres at which 63 % of a surface is hidden.
    ground: world x, z [M] and pixel footprint in metres [M] -> RGB [3, M] sRGB, for paint of texture GROUND.
    corners: room limits (x0, x1, y0, y1, z0, z1) in metres; surfaces darken towards them.
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


@dataclass(frozen=True)
class Scene:
    """rgb: uint8 [H, W, 3]. depth: float32 [H, W], metres along the optical axis, 0 = none (sky). content: what can be seen."""

    rgb: NDArray[np.uint8]
    depth: Array
    content: Content


def trace(camera: Camera, solids: list[Solid], size: tuple[int, int]) -> tuple[Array, NDArray[np.int16], Array]:
    """Depth [H, W] in metres (0 = nothing), index of the solid seen [H, W] (-1 = none) and the rays [3, H, W]."""
    rays = camera.rays(size)
    depth = np.full(size, FAR, np.float32)
    seen = np.full(size, -1, np.int16)
    rotation, focal = camera.rotation(), camera.focal(size[1])
    for index, solid in enumerate(solids):
        rows, columns = slice(None), slice(None)
        if solid.shape != PLANE:
            x, y, z = ((solid.corners() - np.array(camera.position, np.float32)) @ rotation).T
            if z.max() < 0.1:
                continue
            if z.min() > 0.1:  # wholly ahead: only the rectangle that its bounding box projects to can show it
                px, py = size[1] / 2 + focal * x / z, size[0] / 2 - focal * y / z
                columns = slice(max(0, int(px.min())), max(0, int(px.max()) + 2))
                rows = slice(max(0, int(py.min())), max(0, int(py.max()) + 2))
        window = rays[:, rows, columns]
        if window.size == 0:
            continue
        t = hit(solid, camera.position, (window[0], window[1], window[2]))
        nearer = t < depth[rows, columns]
        np.copyto(depth[rows, columns], t, where=nearer)
        np.copyto(seen[rows, columns], np.int16(index), where=nearer)
    depth[seen < 0] = 0
    return depth, seen, rays


def picture(world: World, depth: Array, seen: NDArray[np.int16], rays: Array, grain: np.random.Generator) -> NDArray[np.uint8]:
    """The photograph, uint8 [H, W, 3]: surfaces under their lights, haze, sky and a little sensor noise."""
    height, width = depth.shape
    rays, metres, owner = rays.reshape(3, -1), depth.ravel(), seen.ravel().astype(np.intp)
    flat = np.flatnonzero(owner >= 0)
    everywhere = len(flat) == len(metres)
    if not everywhere:
        empty, rays_up = np.flatnonzero(owner < 0), rays
        rays, metres, owner = rays.take(flat, axis=1), metres[flat], owner[flat]
    points = surface_points(world.solids, world.camera.position, rays, metres, owner, 1 / world.camera.focal(width), world.ground)
    light = lit(points, world.solids, world.lights, world.ambient, world.corners, flat, (height, width))
    if world.haze is not None:
        colour, reach = world.haze
        veil = 1 - np.exp(metres / np.float32(-reach))
        light += veil * (np.array(colour, np.float32)[:, None] - light)
    rgb = light
    if not everywhere:
        rgb = np.zeros((3, height * width), np.float32)
        rgb[:, flat] = light
        if world.sky is not None:
            rgb[:, empty] = world.sky(rays_up.take(empty, axis=1))
    display = np.sqrt(np.clip(rgb, 0, 1, out=rgb), out=rgb)  # a gamma of two is near enough to sRGB and quick
    display += grain.standard_normal(display.shape, dtype=np.float32) * np.float32(grain.uniform(0.006, 0.022))
    display = (np.clip(display, 0, 1, out=display) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(display.T).reshape(height, width, 3)


def describe(world: World, depth: Array, seen: NDArray[np.int16]) -> Content:
    """The planned content, with only the things that can be seen and where they are in the image, and the layout of depth."""
    flat = np.flatnonzero(seen.ravel() >= 0)
    owner = np.array([solid.thing for solid in world.solids], np.int64)[seen.ravel()[flat]]
    named = flat[owner >= 0]
    owner, metres, count = owner[owner >= 0], depth.ravel()[named], len(world.content.things)
    pixels = np.bincount(owner, minlength=count)
    total = np.maximum(pixels, 1)
    mean = np.bincount(owner, metres, count) / total
    column = np.bincount(owner, named % depth.shape[1], count) / total / depth.shape[1]
    nearest = np.full(count, np.inf, np.float32)
    np.minimum.at(nearest, owner, metres)
    things = [
        replace(
            thing,
            position=("left", "middle", "right")[min(2, int(3 * column[i]))],
            distance=round(float(nearest[i]), 3),
            mean=round(float(mean[i]), 3),
            pixels=int(pixels[i]),
        )
        for i, thing in enumerate(world.content.things)
        if pixels[i] >= VISIBLE * depth.size
    ]
    height, width = depth.shape
    third = width // 3
    parts = {"left": depth[:, :third], "middle": depth[:, third:-third], "right": depth[:, -third:], "top": depth[: height // 2],
             "bottom": depth[height // 2 :], "all": depth}  # fmt: skip
    layout = {name: _percentiles(part, 50)[0] for name, part in parts.items()}
    layout["near"], layout["far"] = _percentiles(depth, 5, 95)
    return replace(world.content, things=things, layout=layout)


def _percentiles(depth: Array, *percents: float) -> list[float]:
    """Percentiles in metres over pixels that have depth; a third of the rows and columns is enough for words."""
    values = depth[::3, ::3]
    values = values[values > 0]
    return [round(float(v), 3) for v in np.percentile(values, percents)] if values.size else [0.0] * len(percents)


def render(seed: int, domain: str, size: tuple[int, int] = (208, 272)) -> Scene:
    """The scene of a seed: the same pixels on every run; another `size` (height, width) shows the same scene.

    domain: "indoor" (rooms) or "road".
    """
    from ..errors import unknown
    from . import indoor
    from . import road

    builders = {"indoor": indoor.build, "road": road.build}
    if domain not in builders:
        raise unknown("scene domain", domain, builders)
    code = sorted(builders).index(domain)
    world = builders[domain](np.random.default_rng([code, seed]))
    depth, seen, rays = trace(world.camera, world.solids, size)
    rgb = picture(world, depth, seen, rays, np.random.default_rng([code, seed, 1]))
    return Scene(rgb, depth, describe(world, depth, seen))
