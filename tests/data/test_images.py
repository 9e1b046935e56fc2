"""Images: one line for whatever is wrong with a file."""

import numpy as np
import pytest
from PIL import Image

from depthtokens.data.images import read_image, shown_at, shown_size
from depthtokens.errors import DataError


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own about damaged TIFF
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_damaged_images_give_one_line(tmp_path, suffix, message):
    rng = np.random.default_rng(1)
    good = tmp_path / f"good{suffix}"
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(good)
    whole = bytearray(good.read_bytes())
    bad = tmp_path / f"bad{suffix}"
    bad.write_bytes(whole[: len(whole) // 2])
    assert f"cannot read image {bad}: " in message(lambda: read_image(bad))
    for _ in range(60):  # whatever is broken, the only error is ours
        broken = whole.copy()
        for position in rng.integers(0, len(whole), 4) // rng.integers(1, 20):
            broken[position] = rng.integers(256)
        bad.write_bytes(broken[: rng.integers(1, len(whole))])
        try:
            read_image(bad)
        except DataError as error:
            assert "\n" not in str(error)


def test_images_that_are_none(tmp_path, message):
    (tmp_path / "text.jpg").write_text("hello")
    Image.fromarray(np.full((4, 5), 4000, np.uint16)).save(tmp_path / "depth.png")
    assert message(lambda: read_image(tmp_path / "text.jpg")).endswith("it is not an image")
    assert message(lambda: read_image(tmp_path / "none.jpg")).endswith("no such file")
    assert "are image and depth swapped?" in message(lambda: read_image(tmp_path / "depth.png"))
    Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (4, 5, 3)


def test_every_photo_is_shown_at_one_scale():
    """The shorter side of training, then whole patches: none of the photo lies outside of them, and none is shown at another scale."""
    for size, side, expected in (
        ((480, 640), 480, (480, 640)), ((960, 1280), 480, (480, 640)), ((240, 320), 480, (480, 640)), ((1280, 960), 480, (640, 480)),
        ((375, 1242), 352, (352, 1152)), ((70, 130), None, (64, 128)), ((15, 64), None, (0, 64)), ((100, 100), 33, (32, 32)),
    ):  # fmt: skip
        assert shown_size(size, side, 32) == expected
    rng = np.random.default_rng(0)
    for height, width in rng.integers(50, 5000, (50, 2)):
        h, w = shown_size((height, width), 480, 32)
        assert h % 32 == w % 32 == 0 and min(h, w) == 480 and abs(max(h, w) - 480 * max(height, width) / min(height, width)) <= 16
        assert (w, h) == shown_size((width, height), 480, 32)
    photo = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    assert shown_at(photo, 64, 32) is photo and shown_at(photo, 128, 32).shape == (128, 192, 3)
