"""Images: one line for whatever is wrong with a file."""

import numpy as np
import pytest
from PIL import Image

from depthtokens.data.images import read_image
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
