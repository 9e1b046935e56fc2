"""Every reader of a file: our own kinds and foreign ones, each with whole files to begin from."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from depthtokens import DepthTokens, Experiment, load_clip
from depthtokens.data import open_dataset
from depthtokens.data.formats import read_depth
from depthtokens.data.images import read_header, read_image
from depthtokens.data.nyu import NYUv2
from depthtokens.features.store import FeatureStore
from depthtokens.scenes import Scenes
from faults.process import run
from helpers import TINY_CONFIG, make_model


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        name: what tables call it.
        files: whole ones, which are damaged in turn.
        read: reads a file that lies at its place; gives what can be compared.
        sealed: whether it carries a checksum, so that no flipped bit may change what is read.
        json: whether it is JSON, whose values are exchanged as well, under a new seal.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[Path], object]
    sealed: bool = False
    json: bool = False


def digest(values: object) -> str:
    """What was read, in 64 hex digits."""
    found = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, dict):
            for key in sorted(value):
                add(key)
                add(value[key])
        elif isinstance(value, list | tuple):
            for inner in value:
                add(inner)
        elif isinstance(value, torch.Tensor | np.ndarray):
            found.update(f"{value.dtype}{tuple(value.shape)}".encode())
            found.update(np.ascontiguousarray(value.detach().numpy() if isinstance(value, torch.Tensor) else value).tobytes())
        else:
            found.update(repr(value).encode())

    add(values)
    return found.hexdigest()


def make_readers(folder: Path) -> list[Reader]:
    """Write a whole file, or several, of each kind, and say how it is read.

    Args:
        folder: an empty one.
    """
    return [*_photos(folder), *_depths(folder), *_lists(folder), *_mats(folder), *_clips(folder), *_ours(folder)]


def _photos(folder: Path) -> Iterator[Reader]:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    ways = {
        "a.png": {}, "palette.png": {}, "deep.png": {}, "a.jpg": {"exif": exif}, "progressive.jpg": {"progressive": True}, "a.webp": {},
        "a.tif": {}, "packed.tif": {"compression": "tiff_lzw"}, "jpeg.tif": {"compression": "jpeg"}, "a.bmp": {}, "a.gif": {},
    }  # fmt: skip
    for name, options in ways.items():
        shown = image.quantize() if name == "palette.png" else image
        if name == "deep.png":
            shown = Image.fromarray(rng.integers(0, 65535, (20, 30), dtype=np.uint16))
        with contextlib.suppress(KeyError, OSError):  # a format that this Pillow cannot write
            shown.save(folder / name, **options)
    files = tuple(folder / name for name in ways if (folder / name).is_file())

    def read(path: Path) -> object:
        read_header(path)
        return read_image(path)

    yield Reader("photo", files, read)


def _depths(folder: Path) -> Iterator[Reader]:
    depth = np.random.default_rng(1).uniform(0.5, 9, (20, 30)).astype(np.float32)
    Image.fromarray((depth * 1000).astype(np.uint16)).save(folder / "depth.png")
    np.save(folder / "depth.npy", depth)
    np.savez(folder / "depth.npz", depth=depth)
    np.savez_compressed(folder / "packed.npz", depth)
    files = ("depth.png", "depth.npy", "depth.npz", "packed.npz")
    yield Reader("depth map", tuple(folder / name for name in files), lambda path: read_depth(path, 1000))


def _lists(folder: Path) -> Iterator[Reader]:
    root = folder / "listed"
    (root / "images").mkdir(parents=True)
    (root / "depth").mkdir()
    for i in range(3):
        Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(np.full((20, 30), 1000 + i, np.uint16)).save(root / "depth" / f"{i}.png")
    (folder / "pairs.txt").write_text("".join(f"images/{i}.png depth/{i}.png 518.8\n" for i in range(3)))
    (folder / "pairs.csv").write_text("image,depth\n" + "".join(f"images/{i}.png,depth/{i}.png\n" for i in range(3)))

    def opened(path: Path) -> object:
        return open_dataset(f"folder:{root}", "train", list_file=path, depth_scale=1000, depth_range=(0.5, 10.0)).names

    yield Reader("list of pairs", (folder / "pairs.txt", folder / "pairs.csv"), opened)
    settings = root / "depthtokens.json"
    settings.write_text(json.dumps({"depth_scale": 1000, "depth_range": [0.5, 10.0]}))

    def described(path: Path) -> object:
        data = open_dataset(f"folder:{path.parent}", "all")
        return data.depth_scale, data.depth_range

    yield Reader("data description", (settings,), described, json=True)


def _mats(folder: Path) -> Iterator[Reader]:
    try:
        import h5py
        from scipy.io import savemat
    except ImportError:
        return
    rng = np.random.default_rng(2)
    with h5py.File(folder / "nyu.mat", "w") as file:
        for name, kind, high in (("images", np.uint8, 255), ("rawDepths", np.float32, 9), ("depths", np.float32, 9)):
            shape = (4, 3, 8, 6) if name == "images" else (4, 8, 6)
            file[name] = rng.integers(1, high, shape).astype(kind)

    def labelled(path: Path) -> object:
        data = NYUv2(path, "all")
        return [data.read(i) for i in range(len(data))]

    yield Reader("NYUv2 .mat", (folder / "nyu.mat",), labelled)
    for name, packed in (("splits.mat", False), ("packed.mat", True)):
        savemat(folder / name, {"trainNdxs": [[1], [3]], "testNdxs": [[2], [4]]}, do_compression=packed)
    yield Reader(
        "splits.mat", (folder / "splits.mat", folder / "packed.mat"), lambda path: NYUv2(folder / "nyu.mat", "train", path).names
    )  # fmt: skip


def _clips(folder: Path) -> Iterator[Reader]:
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = {**TINY_CONFIG, "text_cfg": {**TINY_CONFIG["text_cfg"], "width": 8, "layers": 1}, "embed_dim": 8}
    model = open_clip.CLIP(**config, quick_gelu=True).eval()
    state = model.state_dict()
    torch.save(state, folder / "clip.pt")
    torch.save({"epoch": 3, "state_dict": state}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "clip.safetensors")
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(_Weights(state)), buffer)
    (folder / "archive.pt").write_bytes(buffer.getvalue())
    files = tuple(folder / name for name in ("clip.pt", "legacy.pt", "clip.safetensors", "archive.pt"))
    yield Reader("CLIP weights", files, lambda path: load_clip(path).fingerprint)
    whole = folder / "open_clip"
    whole.mkdir()
    shutil.copy(folder / "clip.safetensors", whole / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (whole / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    yield Reader("open_clip folder", (whole / "open_clip_config.json",), lambda path: load_clip(path.parent).fingerprint, json=True)


class _Weights(torch.nn.Module):
    """The tensors of a CLIP under their names, to be saved as TorchScript; names become nested modules."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        inner: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            first, _, rest = name.partition(".")
            if rest:
                inner.setdefault(first, {})[rest] = value
            else:
                self.register_buffer(name, value)
        for name, values in inner.items():
            self.add_module(name, _Weights(values))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _ours(folder: Path) -> Iterator[Reader]:
    from depthtokens.cli import main
    from depthtokens.deploy.runtime import OnnxDepth
    from depthtokens.experiment.train import STATE, train
    from depthtokens.reproduce.measured import Measured
    from faults.world import make_world

    world = folder / "world"
    world.mkdir()
    make_world(world)
    clip = load_clip(world / "tiny.pt")
    make_model(clip).save(folder / "tokens.safetensors")

    def loaded(path: Path) -> object:
        model = DepthTokens.load(path, clip)
        return asdict(model.settings), model.state(), asdict(model.provenance)

    yield Reader("token file", (folder / "tokens.safetensors",), loaded, sealed=True)

    trained = folder / "run"
    experiment = Experiment(
        data=f"folder:{world / 'data'}", clip=str(world / "tiny.pt"), out=str(trained), epochs=1, batch_size=2, workers=0, crop=(64, 64)
    )  # fmt: skip
    _apart(lambda: train(experiment, clip=clip), world)

    def resumed(path: Path) -> object:
        done = train(Experiment.from_toml(trained / "experiment.toml"), resume=True, clip=clip)
        return done.epoch_losses, done.model.state()

    yield Reader("checkpoint", (trained / STATE,), resumed, sealed=True)
    yield Reader("experiment.toml", (trained / "experiment.toml",), resumed)
    yield Reader("log.jsonl", (trained / "log.jsonl",), resumed)

    store = _stored(clip, world / "data", folder / "store")

    def checked(path: Path) -> object:
        opened = FeatureStore(store)
        opened.check()
        return opened.meta

    yield Reader("store's meta.json", (store / "meta.json",), checked, sealed=True, json=True)
    yield Reader("shard", tuple(sorted(store.glob("*.safetensors"))[:1]), checked, sealed=True)
    scenes = folder / "scenes"
    rendered = Scenes("indoor", "train", 2, size=(16, 24), seed=1, cache=scenes)

    def scene(path: Path) -> object:
        data = Scenes("indoor", "train", 2, size=(16, 24), seed=1, cache=scenes)
        return [data.read(i) for i in range(2)]

    files = tuple(sorted(path for path in scenes.rglob("*") if path.is_file() and not path.name.startswith(".")))
    assert files and len(rendered) == 2
    yield Reader("scenes", files, scene, sealed=True)

    rows = folder / "rows"
    words = ["--table", "3", "--clip", "tiny.pt", "--seeds", "0", "--steps", "1", "--workers", "0", "--out", str(rows)]
    _apart(lambda: main(["reproduce", "--data", "nyu:nyu", *words]), world)
    row = _row("paper/t3/nyu/depth-7")

    def measured(path: Path) -> object:
        return Measured.read(path, row).result.to_dict()

    yield Reader("row file", (rows / "rows" / "paper_t3_nyu_depth-7.json",), measured, sealed=True, json=True)
    with contextlib.suppress(ImportError):
        import onnx  # noqa: F401

        words = ["--clip", "tiny.pt", "--onnx", str(folder / "model.onnx"), "--size", "64", "64"]
        _apart(lambda: main(["export", str(folder / "tokens.safetensors"), *words]), world)
        photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        yield Reader("ONNX file", (folder / "model.onnx",), lambda path: OnnxDepth(path).predict(photo).metres, sealed=True)


def _apart(action: Callable[[], object], folder: Path) -> None:
    """Do something in a process of its own: one that has trained cannot be forked."""
    done = run(action, folder)
    assert done.code == 0, done.said


def _stored(clip: object, data: Path, out: Path) -> Path:
    from stores import make

    return make(clip, open_dataset(f"folder:{data}", "train"), out).path


def _row(name: str) -> object:
    from depthtokens.reproduce.settings import rows_for

    return next(row for row in rows_for("3", ["nyu"]) if row.name == name)
