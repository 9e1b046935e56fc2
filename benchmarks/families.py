"""One full-size CLIP of each family, with random weights, through `train`, `predict` and `export`.

python benchmarks/families.py [NAME ...]

Training is 20 steps on the patch features of four rendered rooms; predictions and graphs are of images of the tower's own size. Where a
tokenizer is the hub's, ids of CLIP's BPE stand for its: prompts are as long, and random weights know no words. Times are the
processor's, of all threads together, so that other work on the machine matters little.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch

from common import Row, machine, peak_gib, table
from depthtokens import Experiment, load_clip, train
from depthtokens.clip.dual import DualEncoder
from depthtokens.clip.hf import KINDS
from depthtokens.clip.load import FrozenCLIP
from depthtokens.clip.tokenizer import Tokenizer
from depthtokens.deploy.export import export_onnx
from depthtokens.deploy.runtime import OnnxDepth
from depthtokens.scenes import Scenes
from depthtokens.scenes.write import write_folder

MEMBERS = (
    "RN50", "ViT-B-32", "hf:clip", "ViT-B-16-SigLIP", "hf:siglip", "convnext_base", "MobileCLIP-S1", "ViTamin-S", "EVA02-B-16",
    "PE-Core-B-16", "coca_ViT-B-32",
)  # fmt: skip
"""open_clip's names; behind "hf:", a kind of transformers in the size that its configuration has by default."""
MINUTES, GIB = 5, 6
SIZE = (224, 224)


def random_clip(name: str) -> FrozenCLIP:
    """A member with random weights, and a tokenizer that needs no files."""
    if name.startswith("hf:"):
        import transformers

        make = getattr(transformers, KINDS[name.removeprefix("hf:")].model)
        kind = KINDS[name.removeprefix("hf:")]
        clip = FrozenCLIP(DualEncoder(make(make.config_class()), kind.mean, kind.std), name, None, copied=False)
    else:
        clip = load_clip(name, None)
    if clip.text.embedding.num_embeddings < 49408:  # a vocabulary of 32,000
        clip.tokenizer = Tokenizer(open_clip.SimpleTokenizer(), (), (1,), 1)
    elif "SigLIP" in name:
        clip.tokenizer = Tokenizer(open_clip.SimpleTokenizer(), (49406,), (49407,), 0)
    return clip


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Seconds of the processor that a work takes, the least of several, and what it returned."""
    seconds, found = [], None
    for _ in range(repeats):
        start = time.process_time()
        found = work()
        seconds.append(time.process_time() - start)
    return min(seconds), found


def measure(name: str) -> Row:
    """The row of one member, in this process."""
    resource.setrlimit(resource.RLIMIT_CPU, (60 * MINUTES, 60 * MINUTES))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    photo = Scenes("indoor", "train", 1, SIZE).read(0)[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["DEPTHTOKENS_CACHE"] = str(folder / "cache")
        write_folder(folder / "rooms", count=4, test=1, size=SIZE, workers=1)
        clip = random_clip(name)
        tower = clip.image
        experiment = Experiment(
            data=f"folder:{folder / 'rooms'}", clip=name, weights=None, views=1, epochs=10, batch_size=2, workers=0, out=str(folder / "run")
        )
        seconds, result = timed(lambda: train(experiment, clip=clip))
        steps, _ = timed(lambda: [result.model.text_features() for _ in range(3)])
        side = min(tower.image_size)
        torch_seconds, depth = timed(lambda: result.model.predict(photo, side=side), 3)
        exporting, done = timed(lambda: export_onnx(result.model, folder / "model.onnx", size=tower.image_size))
        graph = OnnxDepth(folder / "model.onnx")
        onnx_seconds, again = timed(lambda: graph.predict(photo, side=side), 3)
        apart = float(abs(depth.metres - again.metres).max())
        return {
            "model": name, "mode": tower.default, "image": "x".join(map(str, tower.image_size)), "train, s": seconds,
            "prompts, ms": 1000 * steps / 3, "predict, ms": 1000 * torch_seconds, "export, s": exporting,
            "ONNX, ms": 1000 * onnx_seconds, "ONNX from torch, m": max(apart, done.max_difference), "peak GiB": peak_gib(),
        }  # fmt: skip


def main(names: list[str]) -> None:
    print(machine(), flush=True)
    rows = []
    for name in names or MEMBERS:
        row: Row = {"model": name}
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode < 0:
            row["mode"] = f"more than {MINUTES} minutes"
        elif done.returncode:
            row["mode"] = done.stderr.splitlines()[-1]
        else:
            row = json.loads(done.stdout.splitlines()[-1])
            if row["peak GiB"] > GIB:
                row = {"model": name, "mode": f"more than {GIB} GiB"}
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(table(rows), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(sys.argv[1:])
