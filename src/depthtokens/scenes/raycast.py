"""Ray casting of a few dozen solids in numpy: what is seen in each pixel and how far away, its picture, its content."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .content import Content
from .shade import lit, surface_points
from .solids import PLANE, Array, Solid, hit
from .world import Camera, World

FAR = 400.0  # metres; what lies beyond has no depth
VISIBLE = 1 / 1500  # share of the image that a thing must cover to be named


def trace(camera: Camera, solids: list[Solid], size: tuple[int, int]) -> tuple[Array, NDArray[np.int16], Array]:
    """What is seen in each pixel.

    Args:
        camera: where the rays start.
        solids: what they may meet.
        size: (height, width) of the image in pixels.

    Returns:
        Depth [H, W] in metres (0 = nothing), the index of the solid seen [H, W] (-1 = none), and the rays [3, H, W].
    """
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
    """The photograph: surfaces under their lights, haze, sky and a little sensor noise.

    Args:
        world: what it is taken of.
        depth: [H, W] in metres, from `trace`.
        seen: [H, W] indices of solids, from `trace`.
        rays: [3, H, W], from `trace`.
        grain: what the noise is drawn from.

    Returns:
        RGB uint8 [H, W, 3].
    """
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
    """The content as it turned out: only the things that can be seen, where they are in the image, and the layout of depth.

    Args:
        world: with its planned content.
        depth: [H, W] in metres, from `trace`.
        seen: [H, W] indices of solids, from `trace`.
    """
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
