"""Scenes from seeds: the same pixels for a seed, depth in range, things where the content says."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from depthtokens.errors import UsageError
from depthtokens.scenes import render
from depthtokens.scenes.content import DEPTH_RANGE

SIZE = (60, 80)
DOMAINS = ("indoor", "road")


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


def test_unknown_domain():
    with pytest.raises(UsageError, match="did you mean 'indoor'"):
        render(0, "indor")
