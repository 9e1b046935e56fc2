"""The one door for photos: the same pixels whichever way a photo is given, and one line for whatever is wrong with it."""

import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens.data import images
from depthtokens.data.images import read_header, read_image, read_photo, shown_at, shown_size
from depthtokens.errors import DataError, UsageError


@pytest.mark.filterwarnings("error")  # Pillow's own about damaged TIFF
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


def test_too_many_pixels_for_clip_are_refused(monkeypatch, message):
    monkeypatch.setattr(images, "LARGEST", 64 * 64)
    large = np.zeros((65, 96, 3), np.uint8)
    assert shown_at(large, 32, 32).shape == (32, 32, 3)
    assert message(lambda: shown_at(large, None, 32)).endswith("would be shown at 64x96: crop it, or show it smaller, as with --side 480")
    assert message(lambda: shown_at(large, 64, 32)).endswith("crop it, or give a smaller --side than 64")


EXIF = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""How a camera stores a picture of each EXIF orientation: what turns it upright, in reverse."""


def smooth(height=48, width=64):
    """A picture that JPEG keeps nearly as it is."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 4, columns * 3, (rows + columns) * 2], axis=-1).astype(np.uint8)


def lying(code):
    """A picture as a camera stores it, and its EXIF block."""
    exif = Image.Exif()
    exif[EXIF] = code
    return Image.fromarray(smooth()).transpose(TURNS[code]), exif


@pytest.mark.parametrize("code", TURNS)
@pytest.mark.parametrize("ending", [".png", ".tif", ".webp", ".jpg"])
def test_every_door_turns_photos_upright(tmp_path, monkeypatch, code, ending):
    monkeypatch.setattr(images, "_STRIP", 7)
    path = tmp_path / f"photo{ending}"
    image, exif = lying(code)
    image.save(path, exif=exif, **({"lossless": True} if ending == ".webp" else {"quality": 100} if ending == ".jpg" else {}))
    with Image.open(path) as opened:
        given = read_photo(opened)
    for found in (read_photo(path), read_photo(str(path)), given, read_image(path)):
        assert found.shape == (48, 64, 3) and np.abs(found.astype(int) - smooth()).max() <= (12 if ending == ".jpg" else 0)
    assert read_header(path) == (48, 64, code)


def test_orientation_behind_a_pngs_pixels(tmp_path):
    """Where ExifTool writes it."""
    path = tmp_path / "a.png"
    image, exif = lying(6)
    image.save(path, exif=exif)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    chunk = content[start : start + 12 + int.from_bytes(content[start : start + 4])]
    path.write_bytes(content.replace(chunk, b"").replace(content[-12:], chunk + content[-12:]))
    assert np.array_equal(read_image(path), smooth()) and read_header(path) == (48, 64, 6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "block",
    [
        b"", b"Exif\0\0", b"Exif\0\0garbage that is no TIFF header", b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 20,
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\xff\x7f\x08\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x04\0\0\0\x06\0\0\0\0\0\0\0",
    ],
)  # fmt: skip
def test_exif_blocks_that_lie(tmp_path, block):
    """The picture is whole: it is read as it is stored, without a word of Pillow's."""
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth()).save(path, exif=block, quality=100)
    assert read_photo(path).shape == (48, 64, 3) and read_header(path)[:2] == (48, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = Image.open(path)
    assert read_photo(opened).shape == (48, 64, 3)
    opened.close()


def test_modes_of_colour(tmp_path):
    base = Image.fromarray(smooth())
    images = {
        "grey.png": base.convert("L"), "bit.png": base.convert("1"), "palette.png": base.convert("P"), "palette.gif": base.convert("P"),
        "cmyk.tif": base.convert("CMYK"), "a.bmp": base, "a.webp": base,
    }  # fmt: skip
    for name, image in images.items():
        image.save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
        for found in (read_photo(tmp_path / name), read_photo(image)):
            assert np.array_equal(found, np.asarray(image.convert("RGB"))), name
    base.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read_photo(tmp_path / "cmyk.jpg").astype(int) - smooth()).mean() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "RGBa"])
def test_transparent_parts_are_laid_over_white(tmp_path, mode):
    """What lies hidden there is nobody's picture."""
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:, :32] = 0
    pixels = smooth()
    pixels[:, :32] = (7, 7, 7)
    image = Image.fromarray(np.dstack([pixels, alpha]))
    if mode in ("RGB", "L"):  # one colour is transparent
        image = Image.fromarray(pixels).convert(mode)
        image.info["transparency"] = (7, 7, 7) if mode == "RGB" else 7
    elif mode == "P":
        image = Image.fromarray(np.where(alpha == 0, 1, 2).astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        image.info["transparency"] = 1
    else:
        image = image.convert(mode)
    assert (read_photo(image)[:, :32] == 255).all() and not (read_photo(image)[:, 33:] == 255).all(axis=-1).any()
    if mode != "RGBa":
        image.save(tmp_path / "a.png", **({"transparency": image.info["transparency"]} if "transparency" in image.info else {}))
        assert np.array_equal(read_photo(tmp_path / "a.png"), read_photo(image))


def test_opaque_alpha_changes_nothing():
    assert np.array_equal(read_photo(Image.fromarray(smooth()).convert("RGBA")), smooth())


def test_more_than_8_bits_are_scaled_or_refused(tmp_path, message):
    deep = smooth().astype(np.uint16) * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    (tmp_path / "rgb16.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip
    assert np.array_equal(read_photo(tmp_path / "rgb16.png"), smooth()) and np.array_equal(read_photo(deep), smooth())
    for name, values in (
        ("grey.png", deep[..., 0]),
        ("whole.tif", deep[..., 0].astype(np.int32)),
        ("float.tif", deep[..., 0] / np.float32(9)),
    ):
        image = Image.fromarray(values)
        image.save(tmp_path / name)
        for photo in (tmp_path / name, image):
            assert "more than 8 bits, not a colour image: are image and depth swapped?" in message(lambda photo=photo: read_photo(photo))
    assert "more than 8 bits" in message(lambda: read_photo(deep[..., 0]), UsageError)


def test_arrays_of_every_kind(message):
    pixels = smooth()
    for given in (pixels[..., ::-1][..., ::-1], np.asfortranarray(pixels), np.rot90(np.rot90(pixels, 1), -1)):
        found = read_photo(given)
        assert np.array_equal(found, pixels) and found.flags.c_contiguous
    reversed_channels = read_photo(pixels[..., ::-1])
    assert torch.from_numpy(reversed_channels).shape == (48, 64, 3), "OpenCV's way to RGB"
    for kind in (np.float16, np.float32, np.float64):
        assert np.array_equal(read_photo((pixels / 255).astype(kind)), pixels)
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    assert np.array_equal(read_photo(pixels[..., 0]), grey) and np.array_equal(read_photo(pixels[..., :1]), grey)
    alpha = np.zeros((48, 64, 1), np.uint8)
    assert (read_photo(np.dstack([pixels, alpha])) == 255).all()
    assert np.array_equal(read_photo(np.dstack([pixels, alpha + 255])[::-1])[::-1], pixels)
    assert np.array_equal(read_photo(torch.from_numpy(pixels)), pixels)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 48, 64), np.uint8), "channels go last"), (np.zeros((48, 64, 2), np.uint8), "two channels may be many things"),
        (np.zeros((2, 48, 64, 3), np.uint8), "several photos: give a list of them"), (np.zeros((48, 64, 5), np.uint8), "[48, 64, 5]"),
        (np.zeros((0, 64, 3), np.uint8), "[0, 64, 3]"), (np.zeros((48, 64, 3), np.int64), "int64"), (np.zeros((48, 64, 3), bool), "bool"),
        (np.full((48, 64, 3), 200.0), "has values in 0..1"), (np.full((48, 64, 3), -0.1), "has values in 0..1"),
        (np.full((48, 64, 3), np.nan), "has values in 0..1"), (np.zeros(5, np.uint8), "uint8 [5]"), ([[1, 2], [3]], "not this list"),
        (None, "object []"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_photo(array, said, message):
    assert said in message(lambda: read_photo(array), UsageError)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is EPS, which is not read here: convert it to JPEG or PNG"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is EPS, which is not read here"),
        ("a.HEIC", b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", "it is HEIC, which is not read here"),
        ("a.jpg", b"\0\0\0\x24ftypmif1\0\0\0\0mif1heic", "it is HEIC, which is not read here"),
        ("a.avif", b"\0\0\0\x1cftypavif\0\0\0\0", "it is AVIF, which"), ("a.jpg", b"\0\0\0\x1cftypisom\0\0\0\0", "it is a film"),
        ("a.dng", b"II*\0\x08\0\0\0", "it is a camera's raw file"), ("a.png", b"P6\n1 1\n255\nabc", "it is PPM, which"),
        ("a.png", b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        ("._a.png", b"\0\5\x16\7", "companion file"),
        ("a.jpg", b"<!DOCTYPE html>", "it is not an image"), ("a.png", b"", "it is not an image"),
        ("a.webp", b"RIFF0000WAVE", "not an image"),
    ],
)  # fmt: skip
def test_only_listed_formats_are_opened(tmp_path, name, content, said, message):
    path = tmp_path / name
    path.write_bytes(content)
    found = message(lambda: read_photo(path))
    assert found.startswith(f"cannot read image {path}: ") and said in found


def test_content_decides_not_the_ending(tmp_path):
    for ending in (".png", ".jfif", ".jpg_large", ""):
        Image.fromarray(smooth()).save(tmp_path / f"a{ending}", format="JPEG", quality=100)
        assert read_photo(tmp_path / f"a{ending}").shape == (48, 64, 3)


@pytest.mark.filterwarnings("error")  # Pillow's own about large images
def test_pixel_limit(tmp_path, monkeypatch, message):
    path = tmp_path / "large.png"
    Image.new("1", (10_000, 9_500), 1).save(path)  # beyond Pillow's limit
    assert read_header(path)[:2] == (9_500, 10_000)
    monkeypatch.setattr("depthtokens.data.images.MOST_PIXELS", 90_000_000)
    for photo in (path, Image.new("1", (10_000, 9_500))):
        found = message(lambda photo=photo: read_photo(photo))
        assert "has 95 megapixels (9500x10000), more than the 90 that are read: make it smaller" in found


def test_names_that_are_too_long(tmp_path, message):
    assert message(lambda: read_photo(tmp_path / ("n" * 300))).endswith("File name too long")


def test_one_door():
    """Nowhere else in the package is an image opened."""
    for path in Path(images.__file__).parents[1].rglob("*.py"):
        assert "Image.open(" not in path.read_text(encoding="utf-8"), path


def test_content_of_files(tmp_path, message):
    """Bytes and file objects are read as the file is, and stay open where they were opened."""
    path = tmp_path / "photo.png"
    image, exif = lying(6)
    image.save(path, exif=exif)
    content = path.read_bytes()
    for given in (content, bytearray(content), memoryview(content), io.BytesIO(content)):
        assert np.array_equal(read_photo(given), smooth())
    with path.open("rb") as file:
        assert np.array_equal(read_photo(file), smooth()) and np.array_equal(read_photo(file), smooth()) and not file.closed
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "photo.png")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("photo.png") as file:
        assert np.array_equal(read_photo(file), smooth())

    class Stream(io.BytesIO):
        seekable = staticmethod(lambda: False)

    assert np.array_equal(read_photo(Stream(content)), smooth())  # as from a connection
    assert message(lambda: read_photo(content[: len(content) // 2])).startswith("cannot read this image: ")
    assert message(lambda: read_photo(b"")) == "cannot read this image: it is not an image"
    assert (
        message(lambda: read_photo(b"%!PS-Adobe")) == "cannot read this image: it is EPS, which is not read here: convert it to JPEG or PNG"
    )
    assert "gives str: open it with 'rb'" in message(lambda: read_photo(io.StringIO("hello")), UsageError)
    with path.open("rb") as file:
        file.close()
        assert message(lambda: read_photo(file)).startswith("cannot read this image: ")


def test_tensors(message):
    pixels = smooth()
    chw = torch.from_numpy(pixels).permute(2, 0, 1)
    for given in (
        chw,
        chw.contiguous(),
        chw / 255,
        (chw / 255).half(),
        (chw / 255).double().requires_grad_(),
        torch.nn.Parameter(chw / 255),
    ):
        found = read_photo(given)
        assert np.array_equal(found, pixels) and found.flags.c_contiguous
    coarse = torch.tensor(pixels // 64 * 64).permute(2, 0, 1) / 256
    assert np.array_equal(read_photo(coarse.bfloat16()), read_photo(coarse))
    for given, said in (
        (torch.zeros(1, 48, 64), "[1, 48, 64]"),
        (torch.zeros(2, 3, 48, 64), "several photos: give a list of them"),
        (torch.randn(3, 48, 64), "normalised images go to the model itself"),
        (torch.zeros(3, 48, 64, dtype=torch.int64), "int64"),
        (torch.zeros(3, 48, 64, device="meta"), "not this one [3, 48, 64]"),
    ):
        assert said in message(lambda given=given: read_photo(given), UsageError)


@pytest.mark.parametrize(
    "address", ["https://example.org/a.jpg", "HTTP://example.org/a.jpg", "s3://bucket/a.png", "data:image/png;base64," + "A" * 9999]
)
def test_addresses_are_not_fetched(address, message):
    assert "is an address, and nothing is fetched: download it, then give the file" in message(lambda: read_photo(address), UsageError)
    assert "nothing is fetched" in message(lambda: read_photo(Path(address)), UsageError)


def test_files_that_are_called_like_an_address(tmp_path, monkeypatch, message):
    monkeypatch.chdir(tmp_path)
    Path("http:").mkdir()
    Image.fromarray(smooth()).save("http:/a.png")
    assert np.array_equal(read_photo("http:/a.png"), smooth())
    assert message(lambda: read_photo("nothing.png")).endswith("no such file")
