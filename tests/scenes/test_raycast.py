"""What rays see: depth against closed forms."""

import numpy as np

from depthtokens.scenes.raycast import trace
from depthtokens.scenes.solids import ELLIPSOID, PLANE, Paint, Solid
from depthtokens.scenes.world import Camera

SIZE = (60, 80)
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
