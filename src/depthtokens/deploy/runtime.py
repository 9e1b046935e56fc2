"""Depth from an exported graph, through onnxruntime. Free of torch: neither this module nor what it imports loads it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.images import Photo, named, read_photo, shown_at
from ..depth.depthmap import DepthMap
from ..errors import DataError, UsageError, WeightsError

FORMAT = 1
"""Version of the JSON in a graph's metadata."""
KEY = "depthtokens"
"""Name of the metadata entry that holds that JSON."""


class OnnxDepth:
    """A graph that `depthtokens export` wrote, opened for prediction on the CPU.

    Attributes:
        session: onnxruntime's.
        metadata: what the file says of itself: "model" (the settings, with centres in metres), "clip" (name, fingerprint), "verified"
            (largest difference from torch, metres), ...
        predict_side: height of the training images, pixels, which taller photos are brought to; None for no limit.
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
        path = Path(path)
        if not path.is_file():
            raise WeightsError(f"no ONNX file at {path}")
        try:
            self.session = open_session(str(path), threads)
            header = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        except UsageError:
            raise
        except Exception as error:  # onnxruntime has a class for every way in which a file can be wrong, without a base class
            raise WeightsError(f"{path} is damaged or not an ONNX file ({first_line(error)})") from error
        if header is None:
            raise WeightsError(f"{path} is an ONNX file, but not one that `depthtokens export` wrote")
        try:
            self.metadata: dict[str, Any] = json.loads(header)
            version, model = self.metadata["format"], self.metadata["model"]
            if version == FORMAT:
                self.predict_side: int | None = model["predict_side"]
                self.centres = np.array(model["centres"], np.float32)
                self.depth_range: tuple[float, float] = (model["depth_range"][0], model["depth_range"][1])
                self.stride, self.size = int(self.metadata["stride"]), self.metadata["size"]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise WeightsError(f"{path} is damaged: its depthtokens header cannot be read ({first_line(error)})") from error
        if version != FORMAT:
            raise WeightsError(f"{path} was exported by another version (format {version}, expected {FORMAT}): export it again")

    def predict(self, image: Photo) -> DepthMap:
        """Depth of one photo, as `DepthTokens.predict` gives it.

        Args:
            image: a file, a PIL image, or an RGB array uint8 [H, W, 3].

        Raises:
            DataError: for a file that is no image, an image smaller than one patch, or of another size than a graph of fixed size takes.
        """
        rgb = read_photo(image)
        shown = shown_at(rgb, self.predict_side)
        height, width = shown.shape[:2]
        if min(height, width) < self.stride:
            patch = f"{self.stride}x{self.stride}"
            raise DataError(f"{named(image)}: image of {height}x{width} pixels is smaller than one {patch} patch")
        if self.size and [height, width] != self.size:
            fixed = "x".join(map(str, self.size))
            raise DataError(f"{named(image)}: shown at {height}x{width}, but this graph takes {fixed} only: export it with that --size")
        metres, uncertainty, probs = (output[0] for output in self.session.run(None, {"image": shown[None]}))
        if shown.shape == rgb.shape:
            return DepthMap(metres[0], uncertainty[0], probs, self.depth_range, rgb)
        # The graph's maps have the size of what it was shown; torch resizes once, from patches to the photo's size, and so is done here.
        centres = self.centres[:, None, None]
        depth = (probs * centres).sum(axis=0).clip(*self.depth_range)
        spread = np.sqrt((probs * (centres - depth) ** 2).sum(axis=0))
        size = rgb.shape[0], rgb.shape[1]
        return DepthMap(resized(depth, size), resized(spread, size), probs, self.depth_range, rgb)


def open_session(source: str | bytes, threads: int | None = None) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        source: a file's name, or the content of one.
        threads: of one run; None leaves it to onnxruntime.

    Raises:
        UsageError: where onnxruntime is not installed.
    """
    onnxruntime = need("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its complaints come as exceptions too
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def need(package: str) -> Any:
    """A package of the extra `onnx`. Raises UsageError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(f"ONNX needs the package {package}: pip install 'depthtokens[onnx]'") from error


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


def first_line(error: BaseException) -> str:
    """The start of what an engine says, in one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:160]
