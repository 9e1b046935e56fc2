"""Depth files and lists: what they give, and one line for each that is none."""

import gc
import io
import random
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from depthtokens.data.formats import read_depth, read_prediction
from depthtokens.depth.depthmap import DepthMap
from depthtokens.errors import DataError


def test_depth_without_a_value_is_zero(tmp_path):
    values = np.array([[1.5, np.nan, np.inf], [-np.inf, -2.0, 0.0]])
    np.save(tmp_path / "d.npy", values)
    np.savez(tmp_path / "one.npz", values)
    np.savez(tmp_path / "named.npz", other=values * 2, depth=values)
    for name in ("d.npy", "one.npz", "named.npz"):
        assert read_depth(tmp_path / name).tolist() == [[1.5, 0, 0], [0, 0, 0]]
    np.save(tmp_path / "huge.npy", np.full((2, 2), 1e300))
    assert not read_depth(tmp_path / "huge.npy").any()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 65535), min_size=6, max_size=6), st.sampled_from([1000, 256, 5000]))
def test_16_bit_png_round_trip(tmp_path_factory, values, scale):
    path = tmp_path_factory.getbasetemp() / "round_trip.png"
    Image.fromarray(np.array(values, np.uint16).reshape(2, 3)).save(path)
    depth = read_depth(path, scale)
    assert depth.dtype == np.float32 and np.rint(depth.astype(np.float64) * scale).ravel().tolist() == values


@pytest.mark.filterwarnings("error")
def test_depth_files_that_are_none(tmp_path, message):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(colour).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey.png")
    for name in ("colour.png", "alpha.png"):
        text = message(lambda name=name: read_depth(tmp_path / name, 1000))
        assert f"{name} is a colour image, not a 16-bit depth map" in text
    assert "grey.png is an 8-bit image" in message(lambda: read_depth(tmp_path / "grey.png", 1000))
    assert read_depth(tmp_path / "grey.png", 10, eight_bit=True).max() == np.float32(25.5)

    Image.fromarray(rng.integers(0, 9000, (64, 64)).astype(np.uint16)).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "cannot read depth map" in message(lambda: read_depth(tmp_path / "cut.png", 1000))
    assert "no such file" in message(lambda: read_depth(tmp_path / "none.png", 1000))
    assert "OpenEXR is not supported: convert it to .npy" in message(lambda: read_depth(tmp_path / "a.exr"))
    assert "not from '.jpg'" in message(lambda: read_depth(tmp_path / "a.jpg"))

    np.save(tmp_path / "solid.npy", np.zeros((1, 2, 3)))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.save(tmp_path / "pickled.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    assert "found float64 [1, 2, 3]" in message(lambda: read_depth(tmp_path / "solid.npy"))
    assert "no depth map" in message(lambda: read_depth(tmp_path / "words.npy"))
    assert "holds 2 arrays and none is called 'depth'" in message(lambda: read_depth(tmp_path / "two.npz"))
    for name in ("pickled.npy", "text.npy", "text.npz", "cut.npz"):
        assert "cannot read depth map" in message(lambda name=name: read_depth(tmp_path / name))
    gc.collect()  # a file left open would be told now


def npy_header(shape, descr="<f4"):
    """What a .npy begins with."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_arrays_are_refused_by_their_header(tmp_path, message):
    """A few megabytes can unpack to many gigabytes, and a header can claim any number of them."""
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("depth.npy", "w") as entry:
        entry.write(npy_header((50_000, 50_000)))
        for _ in range(64):
            entry.write(bytes(2**20))
    (tmp_path / "claim.npy").write_bytes(npy_header((50_000, 50_000)) + bytes(100))
    (tmp_path / "small.npy").write_bytes(npy_header((10_000, 10_000)) + bytes(100))
    (tmp_path / "minus.npy").write_bytes(npy_header((-1, 4)) + bytes(100))
    (tmp_path / "cube.npy").write_bytes(npy_header((10**9, 10**9, 3)))
    (tmp_path / "words.npy").write_bytes(npy_header((2, 2), "<U1000000000"))
    with zipfile.ZipFile(tmp_path / "bzip.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("depth.npy", npy_header((2, 2)) + bytes(2**26))
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    (tmp_path / "a_mask.npy").write_bytes(npy_header((50_000, 50_000)))
    tracemalloc.start()
    for name, reason in (
        ("bomb.npz", "2500 megapixels (50000x50000), more than the 300 that are read"), ("claim.npy", "2500 megapixels"),
        ("small.npy", "ends before its numbers do"), ("minus.npy", "cannot read depth map"), ("cube.npy", "found float32 [1000000000, "),
        ("words.npy", "words.npy"), ("bzip.npz", "compressed in a way that NumPy does not write"), ("a.npy", "2500 megapixels"),
    ):  # fmt: skip
        assert reason in message(lambda name=name: read_depth(tmp_path / name))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_mutated_arrays(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4), np.float32))
    np.savez_compressed(tmp_path / "a.npz", depth=np.ones((3, 4), np.float32))
    Image.fromarray(np.ones((3, 4), np.uint16)).save(tmp_path / "a.png")
    draw = random.Random(0)
    for name in ("a.npy", "a.npz", "a.png"):
        whole, target = (tmp_path / name).read_bytes(), tmp_path / f"m_{name}"
        for _ in range(400):
            content = bytearray(whole)
            for _ in range(draw.choice([1, 1, 4])):
                content[draw.randrange(len(content))] = draw.choice([0, 255, draw.randrange(256)])
            target.write_bytes(content)
            try:
                assert read_depth(target).ndim == 2
            except DataError as error:
                assert "\n" not in str(error)


def test_arrays_of_one_channel_and_masks(tmp_path, message):
    """DIODE: depth [H, W, 1], and a mask beside it."""
    depth = np.full((4, 5, 1), 3.0, np.float32)
    np.save(tmp_path / "a.npy", depth)
    assert read_depth(tmp_path / "a.npy").tolist() == [[3.0] * 5] * 4
    mask = np.ones((4, 5), bool)
    mask[:2] = False
    for kind in (bool, np.uint8, np.float32):
        np.save(tmp_path / "a_mask.npy", mask.astype(kind))
        assert read_depth(tmp_path / "a.npy").tolist() == [[0.0] * 5] * 2 + [[3.0] * 5] * 2
    np.save(tmp_path / "a_mask.npy", mask[1:])
    assert "a_mask.npy is 3x5 but its depth map is 4x5" in message(lambda: read_depth(tmp_path / "a.npy"))


def png(path, colour_type, values):
    """A PNG of 16 bits, as Pillow cannot write it: 4 = grey with alpha."""
    height, width = values.shape[:2]

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def test_16_bit_grey_with_alpha_is_refused(tmp_path, message):
    """Pillow would give 8 bits of it."""
    png(tmp_path / "alpha.png", 4, np.full((8, 10, 2), 2345, np.uint16))
    for eight_bit in (False, True):
        found = message(lambda eight_bit=eight_bit: read_depth(tmp_path / "alpha.png", 1000, eight_bit=eight_bit))
        assert found.endswith("is a grey image with an alpha channel, not a 16-bit depth map: save it without alpha")
    png(tmp_path / "plain.png", 0, np.full((8, 10, 1), 2345, np.uint16))
    assert (read_depth(tmp_path / "plain.png", 1000) == np.float32(2.345)).all()


def test_depth_images_are_png(tmp_path, message):
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(tmp_path / "a.png", format="JPEG")
    assert "a.png is a JPEG file, not a PNG" in message(lambda: read_depth(tmp_path / "a.png", 10, eight_bit=True))


def test_predictions_are_read_as_depth_maps_are_saved(tmp_path, message):
    metres = np.linspace(0.5, 9, 12, dtype=np.float32).reshape(3, 4)
    made = DepthMap(metres, metres / 10, np.ones((1, 1, 1), np.float32), (0.1, 10.0), np.zeros((3, 4, 3), np.uint8))
    for ending in (".png", ".npy", ".npz", ".tiff"):
        made.save(tmp_path / f"d{ending}")
        found = read_prediction(tmp_path / f"d{ending}")  # a PNG states its scale
        assert np.abs(found.depth - metres).max() <= (0.0005 if ending == ".png" else 0)
        assert (found.uncertainty is not None) == (ending == ".npz")
    np.testing.assert_array_equal(read_prediction(tmp_path / "d.npz", 2).uncertainty, metres / 10 / np.float32(2))
    np.savez(tmp_path / "bad.npz", depth=metres, uncertainty=-metres)
    assert "no map of finite numbers from 0 up" in message(lambda: read_prediction(tmp_path / "bad.npz"))
    for ending in (".png", ".tiff"):
        Image.fromarray(np.array([[0, 5000]], np.uint16)).save(tmp_path / f"steps{ending}")
        assert f"steps{ending} does not say its unit: state --prediction-scale" in message(
            lambda ending=ending: read_prediction(tmp_path / f"steps{ending}")
        )
        np.testing.assert_array_equal(read_prediction(tmp_path / f"steps{ending}", 1000).depth, [[np.nan, 5]])
        np.testing.assert_array_equal(read_prediction(tmp_path / f"steps{ending}", 1, relative=True).depth, [[0, 5000]])
    np.save(tmp_path / "odd.npy", np.array([[-1, np.inf, np.nan]]))
    np.testing.assert_array_equal(read_prediction(tmp_path / "odd.npy").depth, [[np.nan, np.inf, np.nan]])
    np.testing.assert_array_equal(read_prediction(tmp_path / "odd.npy", relative=True).depth, [[-1, np.nan, np.nan]])
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "photo.tiff")
    assert "expected one channel of 16 bits or floats, found RGB" in message(lambda: read_prediction(tmp_path / "photo.tiff"))
