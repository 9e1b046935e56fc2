"""Where rays meet solids, against points found by small steps."""

import numpy as np
import pytest

from depthtokens.scenes.solids import BOX, ELLIPSOID, FRUSTUM, PRISM, Paint, Solid, hit

SHAPES = [*((shape, (0.7, 0.5, 0.4)) for shape in (BOX, PRISM, ELLIPSOID, FRUSTUM)), (FRUSTUM, (0.3, 0.5, 0.3))]


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
