"""Random views: the same draws everywhere, image and depth in step, values in range."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthtokens.data.augment import FOLDER, KITTI, NYUV2, Augmentation, apply
from depthtokens.errors import DataError, UsageError

PLAIN = Augmentation(pre_crop=None, degrees=0, crop=None, flip_p=0, colour_p=0)


def pair(height, width):
    """A pair in which column is written into red, row into green, and both into depth (never 0)."""
    rows, columns = np.mgrid[:height, :width]
    rgb = np.stack([columns, rows, np.full_like(rows, 200)], axis=-1).astype(np.uint8)
    return rgb, (1 + rows * 1000 + columns).astype(np.float32)


def positions(depth):
    code = depth.astype(int) - 1
    return code // 1000, code % 1000


def test_recipes_are_the_released_ones():
    assert Augmentation((45, 472, 43, 608), 2.5, (416, 544), 0.5, 0.5, (0.9, 1.1), (0.75, 1.25), (0.9, 1.1)) == NYUV2
    assert Augmentation(None, 1.0, (352, 704), 0.5, 0.5, (0.9, 1.1), (0.9, 1.1), (0.9, 1.1)) == KITTI
    assert replace(NYUV2, pre_crop=None, crop=None) == FOLDER


def test_nothing_varied_changes_nothing():
    rgb, depth = pair(30, 40)
    image, view = apply(PLAIN, rgb, depth, np.random.default_rng(0))
    assert image.dtype == view.dtype == np.float32
    assert np.array_equal(image, rgb.astype(np.float32) / 255) and np.array_equal(view, depth)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 40), st.floats(0, 1))
def test_crop_and_flip_keep_image_and_depth_in_step(seed, height, width, flip_p):
    rgb, depth = pair(30, 40)
    image, view = apply(replace(PLAIN, crop=(height, width), flip_p=flip_p), rgb, depth, np.random.default_rng(seed))
    assert image.shape == (height, width, 3) and view.shape == (height, width)
    rows, columns = positions(view)
    assert np.array_equal(np.rint(image[..., 0] * 255), columns) and np.array_equal(np.rint(image[..., 1] * 255), rows)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.floats(0, 10))
def test_rotation_keeps_image_and_depth_in_step(seed, degrees):
    rgb, depth = pair(60, 80)
    image, view = apply(replace(PLAIN, degrees=degrees), rgb, depth, np.random.default_rng(seed))
    # Inside, away from the black corners; nearest and bilinear differ by half a pixel at most, rounding to 8 bits adds another half.
    inside = np.s_[20:40, 25:55]
    rows, columns = positions(view[inside])
    assert np.abs(image[inside][..., 0] * 255 - columns).max() <= 1.01
    assert np.abs(image[inside][..., 1] * 255 - rows).max() <= 1.01
    assert set(np.unique(view)) <= {0.0, *np.unique(depth)}, "depth is never interpolated"


def test_flip_is_the_mirror():
    rgb, depth = pair(20, 30)
    image, view = apply(replace(PLAIN, flip_p=1), rgb, depth, np.random.default_rng(1))
    assert np.array_equal(image, rgb[:, ::-1].astype(np.float32) / 255) and np.array_equal(view, depth[:, ::-1])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_colour_stays_in_range_and_leaves_depth_alone(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    depth = pair(24, 32)[1]
    image, view = apply(
        replace(NYUV2, pre_crop=None, crop=None, degrees=0, flip_p=0, colour_p=1), noise, depth, np.random.default_rng(seed)
    )
    assert image.dtype == np.float32 and image.min() >= 0 and image.max() <= 1
    assert np.array_equal(view, depth)


def test_colour_factors_stay_in_their_ranges():
    grey, depth = np.full((2, 2, 3), 128, np.uint8), np.ones((2, 2), np.float32)
    aug = replace(PLAIN, colour_p=1, gamma=(1, 1), brightness=(0.75, 1.25), colour=(0.9, 1.1))
    factors = np.array([apply(aug, grey, depth, np.random.default_rng(seed))[0][0, 0] / (128 / 255) for seed in range(200)])
    assert factors.min() >= 0.75 * 0.9 - 1e-6 and factors.max() <= 1.25 * 1.1 + 1e-6
    assert factors.min() < 0.75 and factors.max() > 1.25, "the ranges are used to their ends"
    assert (np.ptp(factors, axis=1) <= 0.2 * 1.25 + 1e-6).all()


@pytest.mark.parametrize(("aug", "size", "shape"), [(NYUV2, (480, 640), (416, 544)), (KITTI, (352, 1216), (352, 704))])
def test_recipes_give_their_sizes(aug, size, shape):
    rgb, depth = np.zeros((*size, 3), np.uint8), np.ones(size, np.float32)
    image, view = apply(aug, rgb, depth, np.random.default_rng(3))
    assert image.shape == (*shape, 3) and view.shape == shape and view.flags.c_contiguous


def test_pre_crop_keeps_columns_43_to_608_and_rows_45_to_472():
    rows, columns = np.mgrid[:480, :640]
    depth = (1 + rows * 1000 + columns).astype(np.float32)
    _, view = apply(replace(PLAIN, pre_crop=NYUV2.pre_crop), np.zeros((480, 640, 3), np.uint8), depth, np.random.default_rng(0))
    rows, columns = positions(view)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (45, 472, 43, 608)


def test_same_seed_same_view():
    rgb, depth = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8), np.ones((480, 640), np.float32)
    a, b, c = (apply(NYUV2, rgb, depth, np.random.default_rng(seed)) for seed in ([42, 0, 7], [42, 0, 7], [42, 1, 7]))
    assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])
    assert not np.array_equal(a[0], c[0])


@pytest.mark.parametrize(
    ("aug", "text"),
    [(replace(PLAIN, crop=(31, 40)), "30x40, smaller than the training crop 31x40: state a smaller --crop"), (NYUV2, "pre-crop")],
)
def test_too_small_images_say_so(aug, text):
    with pytest.raises(DataError, match=text) as caught:
        apply(aug, *pair(30, 40), np.random.default_rng(0))
    assert "\n" not in str(caught.value)


def test_crop_must_be_a_size():
    with pytest.raises(UsageError, match="--crop 0 4"):
        NYUV2.with_crop((0, 4))
