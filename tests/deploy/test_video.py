"""Films: every frame, upright, at its time; results whole or as far as the film goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from depthtokens import DataError, DepthTokens, UsageError
from depthtokens.deploy.log import LOG
from depthtokens.deploy.photos import Batch
from depthtokens.deploy.video import Smoothed, depth_video, opened_film
from depthtokens.deploy.written import Wanted
from depthtokens.depth.depthmap import DepthMap
from helpers import needs_mount, one_by_one, refused, run

av = pytest.importorskip("av", reason="needs the extra: pip install 'depthtokens[video]'")


def film(path, frames=6, size=(48, 64), rate=Fraction(30000, 1001), times=None, noise=False, **options):
    """A film whose left half gets brighter frame by frame; its right half is black."""
    with path.open("w+b") as file, av.open(file, "w", format="matroska" if path.suffix == ".mkv" else "mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for i in range(frames):
            rgb = np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8) if noise else np.zeros((*size, 3), np.uint8)
            rgb[:, : size[1] // 2] = 20 + i * 30 % 200
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = times[i] if times else i, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turned(path):
    """Have an MP4 say that it is to be shown turned by a quarter clockwise, as a telephone that was held upright."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    for i, value in enumerate((0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)):
        content[at + 4 * i : at + 4 * i + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    return path


class Brightness:
    """Stands for a model: metres are brightness / 50, from 0.2 on."""

    def __init__(self):
        self.shown = []

    def __call__(self, photo):
        rgb = np.asarray(Image.open(photo)) if not isinstance(photo, np.ndarray) else photo
        self.shown.append(rgb.shape)
        metres = np.maximum(rgb.mean(axis=-1) / 50, 0.2).astype(np.float32)
        return DepthMap(metres, metres / 10, np.ones((1, 1, 1), np.float32), (0.2, 5.0), rgb)


def decoded(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
        return stream.average_rate, frames


def test_a_film_of_depth(tmp_path):
    """Frame rate and count are kept, and a colour means the same metres in every frame."""
    batch, model = Batch([film(tmp_path / "a.mp4")], tmp_path / "out", Wanted(colour_map="gray")), Brightness()
    batch.run(one_by_one(model), {})
    rate, frames = decoded(tmp_path / "out" / "a_depth.mp4")
    assert not batch.failed and rate == Fraction(30000, 1001) and len(frames) == len(model.shown) == 6
    assert [time for time, _ in frames] == pytest.approx([i * 1001 / 30000 for i in range(6)])
    for i, (_, rgb) in enumerate(frames):
        metres = (20 + i * 30) / 50
        assert np.abs(rgb[:, :28].mean() - (metres - 0.2) / 4.8 * 255) < 4 and rgb[:, 36:].mean() < 4
    row = batch.rows[0]
    assert (row["frames"], row["height"], row["width"]) == (6, 48, 64) and row["max"] == pytest.approx(3.4, abs=0.05)
    assert row["files"] == [str(tmp_path / "out" / "a_depth.mp4")]
    summary = batch.summary()
    assert (summary["predicted"], summary["shown"]) == (1, 6)


def test_frames_of_uneven_lengths_keep_their_times(tmp_path):
    times = [0, 1, 5, 6, 20, 21]
    film(tmp_path / "a.mkv", times=times, rate=Fraction(25))
    Batch([tmp_path / "a.mkv"], tmp_path / "out", Wanted()).run(one_by_one(Brightness()), {})
    found = [time for time, _ in decoded(tmp_path / "out" / "a_depth.mp4")[1]]
    assert found == pytest.approx([time / 25 for time in times], abs=1e-3)


def test_times_that_make_no_sense(tmp_path):
    """A frame that is not behind the one before comes right after it; a film does not stand still for hours."""
    with depth_video(tmp_path / "a.mp4", Fraction(25)) as add:
        for seconds in (0, 1, 1, 0, 2):
            add(np.zeros((32, 32, 3), np.uint8), Fraction(seconds))
    times = [time for time, _ in decoded(tmp_path / "a.mp4")[1]]
    assert len(times) == 5 and times == pytest.approx([0, 1, 1, 1, 2], abs=1e-3)
    batch = Batch([film(tmp_path / "b.mkv", frames=3, times=[0, 1, 200_000])], tmp_path / "out", Wanted())
    batch.run(one_by_one(Brightness()), {})
    assert "b.mkv breaks off after 2 frames (its times make no sense from there on)" in batch.failed[0]


FULL = """
import numpy as np
from fractions import Fraction
from pathlib import Path
from depthtokens.deploy.video import depth_video
try:
    with depth_video(Path("a.mp4"), Fraction(25)) as add:
        for i in range(100):
            add(np.random.default_rng(i).integers(0, 255, (96, 128, 3), np.uint8), Fraction(i, 25))
except Exception as error:
    print(error, len(list(Path().iterdir())))
"""


@needs_mount
def test_a_full_disk(tmp_path):
    mounted = f'mount -t tmpfs -o size=64k tmpfs . && cd "$PWD" && exec "{sys.executable}" -c "$CODE"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted], cwd=tmp_path, env={**os.environ, "CODE": FULL}, capture_output=True, text=True
    )
    assert done.stdout == "cannot write a.mp4: No space left on its disk 0\n", done


def test_a_turned_film_is_shown_upright(tmp_path):
    model = Brightness()
    Batch([turned(film(tmp_path / "a.mp4"))], tmp_path / "out", Wanted(["video", "npy"])).run(one_by_one(model), {})
    assert set(model.shown) == {(64, 48, 3)} and decoded(tmp_path / "out" / "a_depth.mp4")[1][0][1].shape == (64, 48, 3)
    metres = np.load(tmp_path / "out" / "a_frames" / "000005_depth.npy")
    assert metres[:28].mean() == pytest.approx(3.4, abs=0.1) and np.allclose(metres[36:], 0.2)  # what was left is above


def test_odd_sides(tmp_path):
    class Odd(Brightness):
        def __call__(self, photo):
            return super().__call__(photo[:47, :63])

    Batch([film(tmp_path / "a.mp4")], tmp_path / "out", Wanted()).run(one_by_one(Odd()), {})
    assert decoded(tmp_path / "out" / "a_depth.mp4")[1][0][1].shape == (46, 62, 3)


def test_smoothing():
    """Half of the way in log depth: from 1 m to 4 m is 2 m, then 2.83 m; a film of another size begins anew."""
    smooth, metres = Smoothed(0.5), [1.0, 4.0, 4.0]
    maps = [DepthMap(*[np.full((2, 2), m, np.float32)] * 2, np.ones((1, 1, 1), np.float32), (0.1, 9), None) for m in metres]
    found = [smooth(depth) for depth in maps]
    assert [float(depth.metres[0, 0]) for depth in found] == pytest.approx([1, 2, 8**0.5])
    assert found[1].uncertainty[0, 0] == 4.0 and Smoothed(0)(maps[1]) is maps[1]
    assert smooth(DepthMap(*[np.full((3, 2), 7, np.float32)] * 2, maps[0].probs, (0.1, 9), None)).metres[0, 0] == pytest.approx(7)
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="needs a share from 0 up to less than 1"):
            Wanted(smooth=share)


def test_frames_as_files_and_going_on(tmp_path):
    out, wanted = tmp_path / "out", Wanted(["npy", "png", "video"])
    films = [film(tmp_path / "a.mp4"), film(tmp_path / "b.mp4", frames=3)]
    batch = Batch(films, out, wanted)
    batch.run(one_by_one(Brightness()), {})
    assert len(list((out / "a_frames").iterdir())) == 12 and len(list((out / "b_frames").iterdir())) == 6
    assert batch.rows[1]["files"] == [str(out / "b_frames"), str(out / "b_depth.mp4")]
    model, batch = Brightness(), Batch(films, out, wanted)
    batch.run(one_by_one(model), {}, resume=True)
    assert not model.shown and batch.kept == 2 and batch.rows[0]["frames"] == 6
    (out / "b_frames" / "000002_depth.npy").unlink()
    model = Brightness()
    Batch(films, out, wanted).run(one_by_one(model), {}, resume=True)
    assert len(model.shown) == 3
    with pytest.raises(UsageError, match="other smooth than asked for"):
        Batch(films, out, Wanted(wanted.formats, smooth=0.5)).run(one_by_one(model), {}, resume=True)
    with pytest.raises(UsageError, match="exists"):
        Batch(films, out, wanted).refuse_existing()


@pytest.mark.parametrize(("name", "options", "why"), [
    ("a.mp4", {"movflags": "faststart"}, "Invalid data"), ("a.mkv", {}, "it says that it lasts 4.0 s"),
])  # fmt: skip
def test_a_film_that_breaks_off(tmp_path, name, options, why):
    """What was done is kept, the rest of the batch goes on, and the next run tries again."""
    path, whole = film(tmp_path / name, frames=120, noise=True, **options), film(tmp_path / "whole.mp4", frames=2)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    batch, model = Batch([path, whole], tmp_path / "out", Wanted(["video", "npy"])), Brightness()
    batch.run(one_by_one(model), {})
    frames = len(model.shown) - 2
    assert len(batch.failed) == 1 and len(batch.rows) == 1 and 40 < frames < 120
    assert f"breaks off after {frames} frames ({why}" in batch.failed[0] and batch.failed[0].endswith("their results are kept")
    assert len(list((tmp_path / "out" / "a_frames").iterdir())) == len(decoded(tmp_path / "out" / "a_depth.mp4")[1]) == frames
    model = Brightness()
    Batch([path, whole], tmp_path / "out", Wanted(["video", "npy"])).run(one_by_one(model), {}, resume=True)
    assert len(model.shown) == frames


@pytest.mark.parametrize("content", [b"", b"no film at all", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b"\0\0\0\x20ftypisom" + bytes(100),
                                     b"\x1aE\xdf\xa3" + bytes(100), b"RIFF\0\0\0\0AVI " + bytes(100)])  # fmt: skip
def test_no_film(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    batch = Batch([tmp_path / "a.mp4"], tmp_path / "out", Wanted())
    batch.run(one_by_one(Brightness()), {})
    assert len(batch.failed) == 1 and "cannot read film" in batch.failed[0] and "\n" not in batch.failed[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] in ([], [LOG])
    whole = film(tmp_path / "c.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(whole.replace(b"avc1", b"zzzz"))
    with pytest.raises(DataError, match="of a kind that PyAV does not decode"), opened_film(tmp_path / "c.mp4"):
        pass
    with pytest.raises(DataError, match="no such file"), opened_film(tmp_path / "b.mp4"):
        pass


def test_the_verb(capsys, tiny_clip, tmp_path, monkeypatch):
    tokens = tmp_path / "tokens.safetensors"
    DepthTokens(tiny_clip, depth="learned:5", predict_side=64).save(tokens)
    (tmp_path / "in" / "a").mkdir(parents=True)
    film(tmp_path / "in" / "a" / "x.mp4", frames=3)
    Image.new("RGB", (64, 48)).save(tmp_path / "in" / "y.png")
    words = ("predict", tokens, tmp_path / "in", tmp_path / "in" / "*" / "*.mp4", "--out", tmp_path / "out")
    code, stdout, err = run(capsys, *words, "--smooth", 0.8, "--verbose")
    assert code == 0 and "2 of 2 images (4 with the frames of films) predicted in" in stdout, err
    made = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert made == {"a/x_depth.mp4", "y_depth.png", "y_side.png", LOG}
    code, stdout, err = run(capsys, *words, "--smooth", 0.8, "--resume", "--json")
    assert code == 0 and json.loads(stdout)["summary"]["kept"] == 2, err
    said = refused(capsys, *words, "--formats", "video", "--overwrite")
    assert "--formats video is for films, and" in said and "y.png is none" in said
    assert "x.mp4 says no focal length" in refused(capsys, "predict", tokens, tmp_path / "in" / "a" / "x.mp4", "--formats", "ply")
    assert "films are named" in refused(capsys, "predict", tokens, tmp_path / "in" / "a", code=1)
    monkeypatch.setitem(sys.modules, "av", None)
    assert refused(capsys, *words, "--resume") == "a film needs the package av: pip install 'depthtokens[video]'"
