"""What comes out the same bit for bit, and what only within rounding: the table in docs/reliability.md.

    python benchmarks/exactness.py

Trains and predicts on rendered scenes with the bundled CLIP, each time with one thing other than before, and prints the largest
difference as Markdown: of depth and tokens relative to the largest value there, of features relative to their row's length.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from common import table
from depthtokens import DepthTokens, Experiment, load_clip, train
from depthtokens.clip.load import FrozenCLIP
from depthtokens.deploy.export import export_onnx
from depthtokens.deploy.runtime import OnnxDepth
from depthtokens.experiment.learn import Learner, fit
from depthtokens.experiment.source import open_source
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write
from depthtokens.scenes import Scenes

SIZE, IMAGES = (96, 128), 12


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def threaded(count: int, work: Callable[[], Tensor]) -> Tensor:
    """Do something with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


class Runs:
    """Runs that differ in one thing.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0
        self.clip: FrozenCLIP = load_clip("bundled")
        self.scenes = Scenes("indoor", "train", IMAGES, size=SIZE, seed=0, cache=folder / "cache")
        self.photo = self.scenes.read(0)[0]

    def new(self) -> Path:
        """A folder of its own."""
        self.made += 1
        return self.folder / str(self.made)

    def tokens(self, stop: int | None = None, **changes: object) -> Tensor:
        """What two epochs of training give.

        Args:
            stop: a step after which the run is broken off, to be resumed.
            changes: of its settings.
        """
        values: dict[str, object] = {"epochs": 2, "batch_size": 4, "workers": 0, "lr": 1e-2, "views": 1, "cache": False, "dense": "value"}
        data = self.folder / "data"
        run = Experiment(data=f"folder:{data}", clip="bundled", out=str(self.new()), **{**values, **changes})  # type: ignore[arg-type]

        def progress(label: str, done: int, total: int, note: str = "") -> None:
            if label == "training" and done == stop:
                raise InterruptedError

        try:
            return train(run, clip=self.clip, progress=progress).model.tokens["depth"].detach()
        except InterruptedError:
            return train(run, resume=True, clip=self.clip).model.tokens["depth"].detach()

    def features(self, batch_size: int = 4) -> Tensor:
        """Patch features of all images, one row of length 1 after the other."""
        images = torch.stack([self.scenes[i].image for i in range(IMAGES)])
        with torch.inference_mode():
            grids = torch.cat([self.clip.dense(part, "value") for part in images.split(batch_size)])
        return torch.nn.functional.normalize(grids.flatten(2).mT.reshape(-1, grids.shape[1]), dim=1)

    def store(self, missing: bool = False) -> bytes:
        """All shards of a store, of which one was `missing` and made again."""
        planned = plan(self.clip, self.scenes, Views(), ["value"], shard_bytes=100_000)
        out = self.new()
        write(planned, out, batch_size=4, workers=0)
        if missing:
            sorted(out.glob("*.safetensors"))[1].unlink()
            write(planned, out, batch_size=4, workers=0)
        return b"".join(path.read_bytes() for path in sorted(out.glob("*.safetensors")))

    def model(self) -> DepthTokens:
        """A model of learned words, untrained."""
        return DepthTokens(self.clip, depth="learned:7", dense="value", depth_range=self.scenes.depth_range)

    def side_by_side(self, count: int) -> Tensor:
        """The first of so many models that are trained together."""
        source = open_source(self.model(), self.scenes, Views())
        learners = [Learner(self.model(), 6) for _ in range(count)]
        fit(learners, source, batch_size=4)
        first = learners[0].model
        assert isinstance(first, DepthTokens)
        return first.tokens["depth"].detach()


def measure(folder: Path) -> list[dict[str, object]]:
    """All rows of the table; `folder` is an empty one."""
    from depthtokens.scenes.write import write_folder

    runs = Runs(folder)
    write_folder(folder / "data", "indoor", IMAGES, test=2, size=SIZE, workers=1)
    tokens, features, alone = runs.tokens(), runs.features(), runs.side_by_side(1)
    model = runs.model()
    depth = torch.from_numpy(model.predict(runs.photo).metres)
    onnx = folder / "model.onnx"
    export_onnx(model, onnx, SIZE)

    def predicted() -> Tensor:
        model.text_features()
        return torch.from_numpy(model.predict(runs.photo).metres)

    def unfolded() -> Tensor:
        with torch.no_grad():
            out = model(model.clip.image.normalised(runs.scenes[0].image[None], model.settings.normalisation))
        return torch.nn.functional.interpolate(out.depth, SIZE, mode="bilinear", align_corners=False)[0, 0]

    def compared() -> list[tuple[str, str, float]]:
        return [
            ("a run stopped within an epoch and resumed", "tokens", relative(runs.tokens(stop=4), tokens)),
            ("worker processes: 0 or 2", "tokens", relative(runs.tokens(workers=2), tokens)),
            ("the same command again", "tokens", relative(runs.tokens(), tokens)),
            ("a store of which a shard is made again", "shards", float(runs.store(missing=True) != runs.store())),
            ("threads: all or 1", "features", relative(threaded(1, runs.features), features)),
            ("images in a batch: 4 or 1", "features", relative(runs.features(batch_size=1), features)),
            ("threads: all or 1", "tokens", relative(threaded(1, runs.tokens), tokens)),
            ("features from images or kept in float16", "tokens", relative(runs.tokens(cache=True), tokens)),
            ("five models trained side by side or one alone", "tokens", relative(runs.side_by_side(5), alone)),
            ("threads: all or 1", "depth map", relative(threaded(1, predicted), depth)),
            ("`predict`'s folded network or `model(images)`", "depth map", relative(depth, unfolded())),
            ("`predict` with torch or ONNX", "depth map", relative(torch.from_numpy(OnnxDepth(onnx).predict(runs.photo).metres), depth)),
        ]

    return [
        {"what differs": what, "in": where, "largest difference": "none" if not off else f"{off:.0e}"} for what, where, off in compared()
    ]


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DEPTHTOKENS_CACHE"] = str(Path(folder) / "features")
        print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
        print(table(measure(Path(folder))))


if __name__ == "__main__":
    main()
