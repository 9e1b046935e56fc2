"""Depth from an exported graph, through onnxruntime. Free of torch: neither this module nor what it imports loads it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ..clip import PRECISIONS
from ..data.images import Photo, shown_at
from ..depth.batches import Engine, Many, predicted
from ..depth.depthmap import DepthMap
from ..depth.header import read_clip
from ..depth.settings import MOST_SIDE, ModelSettings
from ..errors import DataError, UsageError, WeightsError, cut, first_line
from ..files import unsealed, user_path
from ..schema import check_plain
from ..summary import Summarised, Summary
from .extra import need
from .onnxfile import graph_sha256, has_external_data, has_float16

FORMAT = 1
"""Version of the JSON in a graph's metadata."""
KEY = "depthtokens"
"""Name of the metadata entry that holds that JSON."""
GRAPH = "graph_sha256"
"""Under which the metadata keeps the SHA-256 of the graph; files of earlier versions have none."""


class OnnxDepth(Summarised):
    """A graph that `depthtokens export` wrote, opened for prediction on the CPU.

    Attributes:
        session: onnxruntime's.
        settings: of the model that was exported.
        clip: the CLIP that it was exported with.
        metadata: what the file says of itself: "model" (the settings, with centres in metres), "clip" (name, fingerprint), "verified"
            (largest difference from torch, metres), ...
        predict_side: shorter side of the training images, pixels, to which `predict` brings that of photos; None leaves them as they are.
        precision: of the image tower in it, float32 or float16.
        centres: [N] metres.
        depth_range: (lo, hi) metres.
        stride: pixels per patch.
        size: [H, W], the only size that the graph takes; None for any.

    Args:
        path: the file.
        threads: of one prediction; None leaves it to onnxruntime (all cores).

    Raises:
        WeightsError: for a file that is not there, is damaged, or is not one that `depthtokens export` of this version wrote.
        UsageError: where onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        path = user_path(path)
        if not path.is_file():
            raise WeightsError(f"no ONNX file at {path}")
        try:
            content = path.read_bytes()
            if has_external_data(content):
                raise WeightsError(f"{path} names other files for its weights, and those are not opened: save it as one file")
            self.session = open_session(content, threads)
            header = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        except (UsageError, WeightsError):
            raise
        except Exception as error:  # onnxruntime has a class for every way in which a file can be wrong, without a base class
            raise WeightsError(f"{path} is damaged or not an ONNX file ({first_line(error)})") from error
        if header is None:
            raise WeightsError(f"{path} is an ONNX file, but not one that `depthtokens export` wrote")
        try:
            self.metadata: dict[str, Any] = unsealed(header, must=GRAPH)
            check_plain(self.metadata, "header")
            if self.metadata.get(GRAPH, graph := graph_sha256(content)) != graph:
                raise ValueError("its graph is not as it was written")
            version = self.metadata["format"]
            if version == FORMAT:
                self.settings = ModelSettings.from_header(self.metadata["model"])
                self.clip = read_clip(self.metadata["clip"])
                self.predict_side: int | None = self.settings.predict_side
                self.centres = np.array(self.settings.centres, np.float32)
                self.depth_range: tuple[float, float] = self.settings.depth_range
                self.stride: int = _pixels(self.metadata["stride"])
                self.precision: str = self.metadata.get("precision", "float32")  # files of earlier versions do not say it
                if self.precision not in PRECISIONS:
                    raise ValueError(f"{cut(repr(self.precision), 80)} is no precision")
                size = self.metadata["size"]
                self.size: list[int] | None = None if size is None else [_pixels(side) for side in size]
                if self.size is not None and len(self.size) != 2:
                    raise ValueError("a size is two numbers")
        except (ValueError, TypeError, KeyError, UsageError) as error:
            raise WeightsError(f"{path} is damaged: what it says of itself does not hold ({first_line(error)})") from error
        if version != FORMAT:
            raise WeightsError(f"{path} was exported by another version (format {version}, expected {FORMAT}): export it again")
        if GRAPH not in self.metadata:
            warnings.warn(f"{path} has no checksums, as files of earlier versions: export it again for one", stacklevel=2)

    def summary(self) -> Summary:
        """What the file is, in a few lines."""
        settings, (lo, hi) = self.settings, self.depth_range
        side = "in their own size" if self.predict_side is None else f"with a shorter side of {self.predict_side} pixels"
        rows = [
            ("template", settings.template),
            ("depth", settings.depth),
            ("bins", f"{len(self.centres)} from {lo:g} to {hi:g} m: {', '.join(f'{centre:.3g}' for centre in self.centres)}"),
            ("image tower", f"{settings.dense}, {self.precision} on the CPU, {self.stride} pixels per patch"),
            ("photos", f"shown {side}{' at {}x{} only'.format(*self.size) if self.size else ''}"),
        ]
        return Summary(f"OnnxDepth of tokens on {self.clip}", rows)

    @overload
    def predict(self, images: Photo, side: int | None = ..., flip: bool = ..., batch_size: int = ...) -> DepthMap: ...
    @overload
    def predict(self, images: Many, side: int | None = ..., flip: bool = ..., batch_size: int = ...) -> list[DepthMap]: ...
    @overload
    def predict(self, images: Iterator[Any], side: int | None = ..., flip: bool = ..., batch_size: int = ...) -> Iterator[DepthMap]: ...
    def predict(self, images: Any, side: int | None = None, flip: bool = False, batch_size: int = 1) -> Any:
        """Depth of one photo or of many, as `DepthTokens.predict` gives it.

        Args:
            images: a photo, a list or an iterator of photos, or a tensor [B, 3, H, W]; see `data.images.read_photo`.
            side: pixels of the shorter side as CLIP is shown it, instead of the one kept with the tokens.
            flip: average with the mirrored photo.
            batch_size: photos that go through the graph together at most.

        Returns:
            A `DepthMap`, a list of them, or an iterator.

        Raises:
            DataError: for a file that is no image, one smaller than a patch, one of another size than a graph of fixed size takes, or
                one of which the graph makes no numbers.
            UsageError: for what is no photo, or a side of less than a patch.
        """
        return predicted(images, self.engine(side, flip), batch_size)

    def engine(self, side: int | None = None, flip: bool = False) -> Engine:
        """What `predict` runs, with its `side` and `flip`."""
        side = self.predict_side if side is None else side
        return Engine(partial(self._shown, side=side), partial(self._depths, flip=flip))

    def _shown(self, rgb: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
        """A photo as CLIP is shown it. Raises DataError where that is not the graph's size."""
        shown = shown_at(rgb, side, self.stride)
        if self.size and list(shown.shape[:2]) != self.size:
            height, width, fixed = *shown.shape[:2], "x".join(map(str, self.size))
            raise DataError(f"shown at {height}x{width}, but this graph takes {fixed} only: export it with that --size, or give --side")
        return shown

    def _depths(self, photos: Sequence[NDArray[np.uint8]], shown: NDArray[np.uint8], flip: bool) -> Iterator[DepthMap]:
        """One pass over photos, in the size in which CLIP is shown them; see `batches.Pass`."""
        *maps, gains = self._run(shown)
        *_, mirrored, others = self._run(np.ascontiguousarray(shown[:, :, ::-1])) if flip else (repeat(None), gains)
        return map(self._full, photos, shown, *maps, gains, mirrored, others)

    def _full(
        self,
        rgb: NDArray[np.uint8],
        shown: NDArray[np.uint8],
        metres: NDArray[np.float32],
        uncertainty: NDArray[np.float32],
        probs: NDArray[np.float32],
        gain: NDArray[np.float32],
        mirrored: NDArray[np.float32] | None,
        other: NDArray[np.float32],
    ) -> DepthMap:
        """The depth map of a photo from what the graph gives for it, and its mirror image's probabilities and gain."""
        size = rgb.shape[0], rgb.shape[1]
        if mirrored is None and shown.shape == rgb.shape:
            return DepthMap(metres[0], uncertainty[0], probs, self.depth_range, rgb)
        # The graph's maps have the size of what it was shown; resizing those again would not be what torch does.
        centres = np.asarray((gain + other) / 2 * self.centres[:, None, None], np.float32)
        depth = self._depth(probs, gain)
        if mirrored is not None:
            depth = np.asarray((depth + self._depth(mirrored, other)[:, ::-1]) / 2, np.float32)
            probs = np.asarray((probs + mirrored[..., ::-1]) / 2, np.float32)
        spread = np.asarray(np.sqrt((probs * (centres - depth) ** 2).sum(axis=0)), np.float32)
        return DepthMap(resized(depth, size), partial(resized, spread, size), probs, self.depth_range, rgb)

    def _run(self, shown: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Depth and uncertainty [B, 1, h, w], probs [B, N, h, w] and gain [B, 1, 1, 1] of photos as they are shown, [B, h, w, 3]."""
        try:
            maps: list[NDArray[np.float32]] = self.session.run(None, {"image": shown})
        except Exception as error:  # onnxruntime's errors have no base class
            raise DataError(f"onnxruntime cannot run the graph on it ({first_line(error)}): show it smaller, with --side") from error
        if not np.isfinite(maps[2]).all():
            why = "export it without --half" if self.precision == "float16" else "is the file whole?"
            raise DataError(f"the graph gives no numbers for this photo, so there is no depth: {why}")
        return maps if len(maps) == 4 else [*maps, np.ones((len(shown), 1, 1, 1), np.float32)]

    def _depth(self, probs: NDArray[np.float32], gain: NDArray[np.float32]) -> NDArray[np.float32]:
        """Depth [h, w] metres in the model's range, of probabilities and the factor [1, 1, 1] on bin centres."""
        return np.asarray((probs * (gain * self.centres[:, None, None])).sum(axis=0).clip(*self.depth_range), np.float32)


def open_session(content: bytes, threads: int | None = None) -> Any:
    """An onnxruntime session on the CPU, with the operators that onnxruntime has itself.

    Args:
        content: of an ONNX file; given its name, onnxruntime would look for more beside it.
        threads: of one run; None leaves it to onnxruntime.

    Raises:
        UsageError: where onnxruntime is not installed.
    """
    onnxruntime = need("onnxruntime", "onnx", "ONNX")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its complaints come as exceptions too
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never its own format, which is not looked through
    # Bringing layers into blocks of channels (NCHWc) kills the process on some float16 graphs, ViTs' among them (onnxruntime 1.32).
    left_out = ["NchwcTransformer"] if has_float16(content) else None
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out)


def _pixels(value: Any) -> int:
    """A number of pixels in a header. Raises ValueError for anything else."""
    if type(value) is not int or not 0 < value <= MOST_SIDE:
        raise ValueError(f"{cut(repr(value), 80)} is no number of pixels")
    return value


def resized(low: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear resize with align_corners=True, as a product of three matrices (it is separable).

    Args:
        low: [h, w].
        size: (H, W).

    Returns:
        [H, W] float32.
    """
    return np.asarray(_interpolation(low.shape[0], size[0]) @ low @ _interpolation(low.shape[1], size[1]).T, np.float32)


def _interpolation(count: int, target: int) -> NDArray[np.float32]:
    """[target, count]: row i holds the weights of the one or two inputs that output i lies on or between."""
    where = np.linspace(0, count - 1, target)
    return np.clip(1 - np.abs(where[:, None] - np.arange(count)), 0, 1).astype(np.float32)
