"""The small world in which commands are disturbed: a CLIP, data, photos, tokens, and the commands that write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from depthtokens.cli import main
from helpers import TINY_CONFIG

VARIES = ("second", "minutes", "speed", "version", "left")
"""Parts of the names under which results keep how long something took."""


READ = ("tiny.pt", "data/", "nyu/", "photos/", "tokens.safetensors", "cache/")
"""What lies in a copy of the world besides results."""


def make_world(folder: Path) -> None:
    """Write everything that the commands read into an empty folder."""
    import open_clip

    from depthtokens import DepthTokens, load_clip

    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**TINY_CONFIG, quick_gelu=True).state_dict(), folder / "tiny.pt")
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 3)):
        for kind in ("images", "depth"):
            (folder / "data" / split / kind).mkdir(parents=True)
        for i in range(count):
            depth = np.linspace(rng.uniform(3, 9), 1.0, 64)[:, None] * np.linspace(1, 0.8, 96)[None]
            rgb = (255 * np.stack([depth / 10, 1 - depth / 10, rng.random(depth.shape)], axis=-1)).astype(np.uint8)
            Image.fromarray(rgb).save(folder / "data" / split / "images" / f"{i}.png")
            Image.fromarray((depth * 1000).astype(np.uint16)).save(folder / "data" / split / "depth" / f"{i}.png")
    (folder / "data" / "depthtokens.json").write_text(json.dumps({"depth_scale": 1000, "depth_range": [0.5, 10.0]}))
    for place, count in (("sync/room", 3), ("official_splits/test/room", 2)):
        (folder / "nyu" / place).mkdir(parents=True)
        for i in range(count):
            depth = np.linspace(rng.uniform(3, 9), 1.0, 480)[:, None] * np.linspace(1, 0.8, 640)[None]
            rgb = (255 * np.stack([depth / 10, 1 - depth / 10, depth / 12], axis=-1)).astype(np.uint8)
            Image.fromarray(rgb).save(folder / "nyu" / place / f"rgb_{i:05d}.jpg")
            Image.fromarray((depth * 1000).astype(np.uint16)).save(folder / "nyu" / place / f"sync_depth_{i:05d}.png")
    (folder / "photos" / "inner").mkdir(parents=True)
    for i, place in enumerate(("", "inner/", "")):
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(folder / "photos" / f"{place}{i}.png")
    clip = load_clip(str(folder / "tiny.pt"))
    DepthTokens(clip, depth="learned:7", dense="value", scale=50, depth_range=(0.5, 10.0)).save(folder / "tokens.safetensors")


@dataclass(frozen=True)
class Verb:
    """A command that writes.

    Attributes:
        name: what tables call it.
        run: does it, in a folder that is a copy of the world.
        again: what a person runs where the same command refuses to go on; None where it never may refuse.
    """

    name: str
    run: Callable[[], object]
    again: Callable[[], object] | None = None


def said(*words: str) -> Callable[[], None]:
    """A command line."""
    return lambda: main(words)


def _demo() -> None:
    """`demo`, of a few small scenes."""
    import depthtokens.demo.run as module

    module.DemoSettings = partial(module.DemoSettings, train=3, test=2, size=(64, 96), epochs=1)
    main(("demo", "--out", "out"))


def _features(*words: str) -> Callable[[], None]:
    """`features` with shards of two images."""

    def run() -> None:
        import depthtokens.features.plan as module

        plan = module.plan

        def small(*args: object, **options: object) -> object:
            planned = plan(*args, **options)
            planned.meta["images_per_shard"] = 2
            return planned

        module.plan = small
        import depthtokens.cli.features as verb

        if hasattr(verb, "plan"):
            verb.plan = small
        main(("features", *words))

    return run


_TRAIN = ("train", "--data", "folder:data", "--clip", "tiny.pt", "--epochs", "2", "--batch-size", "2", "--workers", "0", "--lr", "0.01")
_TOKENS = ("tokens.safetensors", "--clip", "tiny.pt")
_NEARLY = ("--save-minutes", "1e-9", "--out", "out")
_RESUMED = said("train", "--resume", "out")
VERBS = (
    Verb("train", said(*_TRAIN, "--crop", "64", "64", *_NEARLY), _RESUMED),
    Verb("train, features kept", said(*_TRAIN, "--views", "1", *_NEARLY), _RESUMED),
    Verb("features", _features("folder:data", "--clip", "tiny.pt", "--dense", "value", "--workers", "0", "--out", "out")),
    Verb("evaluate", said("evaluate", *_TOKENS, "--data", "folder:data", "--workers", "0", "--csv", "scores.csv")),
    Verb("reproduce", said("reproduce", "--data", "nyu:nyu", "--table", "3", "--clip", "tiny.pt", "--seeds", "0..1", "--steps", "2",
                           "--workers", "0", "--out", "out")),
    Verb("study", said("study", *_TOKENS, "--scales", "depth-7", "--neighbours", "2", "--out", "out")),
    Verb("predict", said("predict", *_TOKENS, "photos", "--formats", "png", "npy", "colour", "side", "--out", "out"),
         said("predict", *_TOKENS, "photos", "--formats", "png", "npy", "colour", "side", "--out", "out", "--resume")),
    Verb("data scenes", said("data", "scenes", "out", "--count", "2", "--size", "32", "48")),
    Verb("demo", _demo),
    Verb("export", said("export", *_TOKENS, "--onnx", "model.onnx", "--size", "64", "96")),
)  # fmt: skip


def result(folder: Path) -> dict[str, str]:
    """What a command wrote into a copy of the world, caches and locks apart: the content of each file as a digest, without durations."""
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }
    return {name: _digest(path, folder) for name, path in found.items() if not name.startswith(READ)}


def _digest(path: Path, folder: Path) -> str:
    if path.name == "predict.jsonl":  # its lines come as photos were done
        content = b"there"
    elif path.suffix == ".safetensors":
        content = b"".join(name.encode() + value.numpy().tobytes() for name, value in sorted(load_file(path).items()))
    elif path.suffix in (".json", ".jsonl"):
        text = path.read_text(encoding="utf-8").replace(str(folder), ".")
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        content = json.dumps([_timeless(json.loads(line)) for line in lines]).encode()
    elif path.suffix in (".html", ".toml", ".md", ".onnx"):
        content = b"there" if path.stat().st_size else b""
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k != "sha256" and not any(part in k for part in VARIES)}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value
