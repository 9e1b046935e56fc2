"""Scenes: depth against closed forms, and the same pixels for a seed."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from depthtokens.errors import UsageError
from depthtokens.scenes import render
from depthtokens.scenes.content import DEPTH_RANGE, scene_seed
from depthtokens.scenes.raycast import Camera, trace
from depthtokens.scenes.solids import BOX, ELLIPSOID, FRUSTUM, PLANE, PRISM, Paint, Solid, hit

SIZE = (60, 80)
DOMAINS = ("indoor", "road")
SHAPES = [*((shape, (0.7, 0.5, 0.4)) for shape in (BOX, PRISM, ELLIPSOID, FRUSTUM)), (FRUSTUM, (0.3, 0.5, 0.3))]
LEVEL = Camera((0, 0, 0), 0, 0, 0, np.pi / 2)  # 90 degrees: focal length = half the width


def grid():
    """Slopes (right, up) of the rays of LEVEL at SIZE."""
    height, width = SIZE
    x = (np.arange(width) + 0.5 - width / 2) / (width / 2)
    y = (height / 2 - np.arange(height) - 0.5) / (width / 2)
    return np.meshgrid(x, y)


def test_sphere_closed_form():
    depth, seen, _ = trace(LEVEL, [Solid(ELLIPSOID, (0.2, -0.1, 4.0), (1.0, 1.0, 1.0), Paint())], SIZE)
    x, y = grid()
    a, b, c = x * x + y * y + 1, -(0.2 * x - 0.1 * y + 4.0), 0.2**2 + 0.1**2 + 16 - 1
    inside = b * b - a * c > 0
    expected = (-b - np.sqrt(np.where(inside, b * b - a * c, 0))) / a
    assert (seen >= 0).sum() > 100
    np.testing.assert_array_equal(seen >= 0, inside)
    np.testing.assert_allclose(depth[inside], expected[inside], rtol=1e-4)
    assert (depth[~inside] == 0).all()


def test_tilted_plane_closed_form():
    normal = np.array([0.3, 0.5, -0.8]) / np.linalg.norm([0.3, 0.5, -0.8])
    depth, _, _ = trace(LEVEL, [Solid(PLANE, (0, 0, 3.0), tuple(normal), Paint())], SIZE)
    x, y = grid()
    expected = normal[2] * 3 / (normal[0] * x + normal[1] * y + normal[2])
    ahead = expected > 0.05
    np.testing.assert_allclose(depth[ahead], expected[ahead], rtol=1e-4)


def test_ground_under_a_tilted_camera():
    height, pitch = 1.5, -0.3
    depth, _, _ = trace(Camera((0, height, 0), 0.7, pitch, 0, np.pi / 2), [Solid(PLANE, (0, 0, 0), (0, 1, 0), Paint())], SIZE)
    _, y = grid()
    down = -(y * np.cos(pitch) + np.sin(pitch))
    np.testing.assert_allclose(depth[down > 0.05], (height / down)[down > 0.05], rtol=1e-4)


@pytest.mark.parametrize("yaw", [0.0, 0.6, -2.0])
@pytest.mark.parametrize(("shape", "half"), SHAPES)
def test_solids_agree_with_marching(shape, half, yaw):
    """The first point along a ray that lies inside the solid, found by small steps."""
    rng = np.random.default_rng(3)
    solid = Solid(shape, (0.1, 0.2, 3.0), half, Paint(), yaw)
    origin = (0.0, 0.9, 0.0)
    direction = rng.normal(0, 0.12, (3, 300)).astype(np.float32) + np.array([[0.03], [-0.22], [1.0]], np.float32)
    t = hit(solid, origin, tuple(direction))
    steps = np.arange(1.5, 5, 0.002)
    p = np.array(origin)[:, None, None] + direction[:, :, None] * steps - np.array(solid.centre)[:, None, None]
    c, s = np.cos(yaw), np.sin(yaw)
    x, y, z = c * p[0] - s * p[2], p[1], s * p[0] + c * p[2]
    inside = {
        BOX: lambda: (abs(x) < half[0]) & (abs(y) < half[1]) & (abs(z) < half[2]),
        PRISM: lambda: (abs(x) < half[0]) & (y > -half[1]) & (y + 2 * half[1] / half[2] * abs(z) < half[1]),
        ELLIPSOID: lambda: (x / half[0]) ** 2 + (y / half[1]) ** 2 + (z / half[2]) ** 2 < 1,
        FRUSTUM: lambda: (
            (abs(y) < half[1]) & (np.hypot(x, z) < half[0] + (half[2] - half[0]) * (y + half[1]) / (2 * half[1]))
        ),
    }[shape]()  # fmt: skip
    first = np.where(inside.any(1), steps[inside.argmax(1)], np.inf)
    both = np.isfinite(first) & np.isfinite(t)
    assert both.sum() > 30
    assert (np.isfinite(first) != np.isfinite(t)).mean() < 0.03  # grazing rays may slip between steps
    assert np.quantile(np.abs(first[both] - t[both]), 0.98) < 0.004


@pytest.mark.parametrize("domain", DOMAINS)
def test_same_pixels_in_another_process(domain):
    code = f"""
import hashlib
from depthtokens.scenes import render
s = render(7, "{domain}", {SIZE})
print(hashlib.sha256(s.rgb.tobytes() + s.depth.tobytes() + repr(s.content).encode()).hexdigest())"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = render(7, domain, SIZE)
    assert hashlib.sha256(here.rgb.tobytes() + here.depth.tobytes() + repr(here.content).encode()).hexdigest() == other


@pytest.mark.parametrize("domain", DOMAINS)
def test_ranges_and_variety(domain):
    scenes = [render(seed, domain, SIZE) for seed in range(40)]
    low, high = DEPTH_RANGE[domain]
    medians = []
    for scene in scenes:
        assert scene.rgb.shape == (*SIZE, 3) and scene.rgb.dtype == np.uint8
        assert scene.depth.shape == SIZE and scene.depth.dtype == np.float32
        assert np.isfinite(scene.depth).all() and (scene.depth >= 0).all()
        medians.append(np.median(scene.depth[scene.depth > 0]))
        # 100 pictures of one grey would pass the rest
        assert scene.rgb.std() > 3
    inside = np.concatenate([s.depth[(s.depth >= low) & (s.depth <= high)] for s in scenes])
    assert inside.size > (0.95 if domain == "indoor" else 0.4) * 40 * SIZE[0] * SIZE[1]
    assert np.percentile(medians, 90) > 1.8 * np.percentile(medians, 10)
    assert len({s.content.place for s in scenes}) > 5
    assert len({s.content.light for s in scenes}) > 3


def test_sky_has_no_depth():
    camera_up = [render(seed, "road", SIZE) for seed in range(30)]
    assert sum((scene.depth[:6] == 0).mean() for scene in camera_up) > 10
    for scene in camera_up:
        assert (scene.depth[-1] > 0).mean() > 0.9  # the ground in front of the camera is never sky
    assert all((render(seed, "indoor", SIZE).depth > 0).all() for seed in range(10))


@pytest.mark.parametrize("domain", DOMAINS)
def test_things_are_where_content_says(domain):
    for seed in range(12):
        scene = render(seed, domain, SIZE)
        near, far = scene.depth[scene.depth > 0].min() - 1e-3, scene.depth.max() + 1e-3  # contents are rounded to millimetres
        for thing in scene.content.things:
            assert thing.pixels >= 3
            assert near <= thing.distance <= thing.mean <= far


def test_another_size_shows_the_same_scene():
    small, large = render(5, "indoor", (52, 68)), render(5, "indoor", (208, 272))
    np.testing.assert_allclose(np.median(small.depth), np.median(large.depth), rtol=0.02)
    assert small.content.place == large.content.place


def test_seeds_of_splits_never_meet():
    seeds = {scene_seed(seed, split, index) for seed in range(4) for split in ("train", "test") for index in range(500)}
    assert len(seeds) == 4 * 2 * 500


def test_unknown_domain():
    with pytest.raises(UsageError, match="did you mean 'indoor'"):
        render(0, "indor")
