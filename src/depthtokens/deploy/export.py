"""A model as one ONNX graph: photo in, metres out; compared with torch before anybody relies on it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._version import versions
from ..depth.fused import FusedDepth
from ..depth.model import DepthTokens
from ..depth.settings import SHIFT
from ..errors import DepthTokensError, UsageError, first_line
from ..files import atomic, check_writable, sealed, user_path
from .extra import need
from .onnxfile import graph_sha256
from .runtime import FORMAT, GRAPH, KEY, OnnxDepth, open_session

TOLERANCE = 2e-3
"""Metres by which a graph's depth may differ from torch's at any pixel; rounding alone makes a hundred times less."""
HALF_TOLERANCE = 0.02
"""The same of a float16 graph, as a part of the farthest depth that the model can say."""
LARGEST = 2**31 - 2**24
"""Bytes of weights that one ONNX file holds: protobuf ends at 2 GiB, and a graph needs some beside its weights."""
OPSET = 18
"""Version of ONNX's operators that graphs use."""
OUTPUTS = ("depth", "uncertainty", "probs")
"""Names of a graph's outputs, in order; behind them may stand "gain"."""


@dataclass(frozen=True)
class Exported:
    """What `export_onnx` wrote.

    Attributes:
        path: the file.
        bytes: its size.
        max_difference: metres, the largest difference from torch's float32 depth that was seen.
        sizes: (H, W) of the images that it was compared on.
    """

    path: Path
    bytes: int
    max_difference: float
    sizes: list[tuple[int, int]]


class Graph(nn.Module):
    """What is exported: from RGB images uint8 [B, H, W, 3] to what `FusedDepth.maps` gives in their own size.

    Args:
        fused: the model in the form that predicts.
    """

    def __init__(self, fused: FusedDepth) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Depth and uncertainty [B, 1, H, W] metres, probs [B, N, h, w], and the gain [B, 1, 1, 1] where there is one."""
        return self.fused.maps(image, (image.shape[1], image.shape[2]))


def export_onnx(
    model: DepthTokens, path: str | Path, size: tuple[int, int] | None = None, overwrite: bool = False, half: bool = False
) -> Exported:
    """Write a model as one ONNX file, which needs neither torch nor CLIP.

    The graph's input is `image`, uint8 [B, H, W, 3] RGB; its outputs are `depth` [B, 1, H, W] and `uncertainty` [B, 1, H, W] in metres,
    and `probs` [B, N, h, w]; with condition="gain" also `gain` [B, 1, 1, 1], the factor on the bin centres. Its metadata `depthtokens` says
    what the model is (JSON). Before the file is written, the graph is run on images of several sizes and compared with torch in float32.

    Args:
        model: what is exported.
        path: the file, ending in .onnx.
        size: (H, W), the only size of image that the graph is to take; None for any from one patch on, where the image tower takes any.
        overwrite: whether a file that exists may be replaced.
        half: whether the image tower is float16, which halves the file; what follows it, from the similarities on, stays float32.

    Raises:
        DepthTokensError: where graph and torch differ by more than `TOLERANCE` (`HALF_TOLERANCE` of a float16 graph), float16 does not
            hold the tower's values, or the file cannot be written (found out first).
        UsageError: for a size below one patch, a missing package, a bad or taken file name, a model that exports only with a fixed
            size, prompts that depend on the image, or an image tower that passes what one file holds (2 GiB).
    """
    path = user_path(path)
    check_target(path, overwrite)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package, "onnx", "ONNX")
    if model.settings.condition == SHIFT:
        raise UsageError("every image has prompts of its own with condition shift, so the text tower is needed: predict with torch")
    check_bytes(model, half)
    size = size or model.tower.fixed_size
    exact = Graph(model.folded("float32").cpu())
    graph = Graph(model.folded("float16").cpu()) if half else exact
    if size is not None and min(size) < graph.fused.stride:
        raise UsageError(f"size {size[0]}x{size[1]} is smaller than one {graph.fused.stride}x{graph.fused.stride} patch")
    if half:
        check_float16(graph, size or model.tower.image_size)
    proto = to_onnx(graph, size, OUTPUTS if model.settings.condition is None else (*OUTPUTS, "gain"))
    sizes = [size] if size else _sizes(model, graph.fused.stride)
    try:
        difference = max_difference(exact, proto.SerializeToString(), sizes)
    except Exception as error:  # the exporter may fix in silence what was to be free; onnxruntime's errors have no base class
        raise DepthTokensError(f"not written: onnxruntime cannot run the graph ({first_line(error)}){_hint(size)}") from error
    tolerance = HALF_TOLERANCE * model.settings.depth_range[1] if half else TOLERANCE
    if not difference <= tolerance:
        raise DepthTokensError(
            f"not written: the graph does not give torch's depth within {tolerance:g} m (it differs by {difference:.2g} m)"
            f"{': it may without --half' if half else _hint(size)}"
        )
    described = _describe(model, graph.fused, size) | {
        "verified": {"max_difference_m": difference, "sizes": sizes}, GRAPH: graph_sha256(proto.SerializeToString())
    }  # fmt: skip
    proto.metadata_props.add(key=KEY, value=json.dumps(sealed(described)))
    with atomic(path) as file:
        file.write(proto.SerializeToString())
    OnnxDepth(path)  # opens as a user will open it
    return Exported(path, path.stat().st_size, difference, sizes)


def check_target(path: Path, overwrite: bool) -> None:
    """Find out before the work whether a file can be written after it.

    Args:
        path: the file.
        overwrite: whether a file that exists may be replaced.

    Raises:
        UsageError: for a name that does not end in .onnx, or is taken.
        DepthTokensError: where nothing can be written there.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: an ONNX file's name ends in .onnx")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: choose another name, or --overwrite")
    check_writable(path)


def check_bytes(model: DepthTokens, half: bool = False) -> None:
    """Raise UsageError for an image tower that one ONNX file cannot hold, before the work of writing it."""
    size = sum(value.numel() * (2 if half else 4) for value in model.visual.parameters())
    if size > LARGEST:
        raise UsageError(
            f"this CLIP's image tower takes {size / 2**30:.2f} GiB, and one ONNX file holds 2 GiB at most: "
            f"{'' if half else 'try --half, '}predict it with torch, or export the tokens of a smaller CLIP"
        )


def check_float16(graph: Graph, size: tuple[int, int]) -> None:
    """Raise DepthTokensError where float16 does not hold what a tower makes of an image (H, W); onnxruntime may keep more on the CPU."""
    with torch.inference_mode():
        image = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        try:
            graph(image)
        except UsageError as error:
            raise DepthTokensError(f"not written: {error}: export without --half") from error


def to_onnx(graph: nn.Module, size: tuple[int, int] | None, outputs: tuple[str, ...] = OUTPUTS) -> Any:
    """The graph of a module, for any number of images.

    Args:
        graph: takes images uint8 [B, H, W, 3].
        size: (H, W), the only size of image that it is to take; None for any.
        outputs: names of what the module returns.

    Returns:
        onnx's ModelProto.

    Raises:
        UsageError: for a module that does not export.
    """
    example = torch.zeros(2, *(size or (97, 161)), 3, dtype=torch.uint8)
    free = dict(enumerate("B" if size else "BHW"))
    try:
        with _silence():
            program = torch.onnx.export(
                graph, (example,), dynamo=True, opset_version=OPSET, input_names=["image"], output_names=outputs, dynamic_shapes=(free,)
            )
    except Exception as error:  # the exporter's failures have no base class of their own
        raise UsageError(f"this model does not export to ONNX ({first_line(error)}){_hint(size)}") from error
    assert program is not None
    proto = program.model_proto
    _strip(proto.graph)
    return proto


def _strip(graph: Any) -> None:
    """Remove the exporter's notes from a graph: they say, by its path on this machine, which line of code every node comes from."""
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                _strip(inner)


def max_difference(graph: nn.Module, content: bytes, sizes: list[tuple[int, int]]) -> float:
    """By how much full-size depth from onnxruntime differs from torch's, on one image of each size and a batch of three.

    Args:
        graph: in torch, in float32.
        content: the same as an ONNX file.
        sizes: (H, W) of the images.

    Returns:
        Metres, the largest difference at any pixel; NaN where either side gives NaN.
    """
    session = open_session(content)
    generator = torch.Generator().manual_seed(0)
    differences = []
    for count, (height, width) in [(1, size) for size in sizes] + [(3, sizes[0])]:
        smooth = F.interpolate(torch.rand(count, 3, 4, 5, generator=generator), (height, width), mode="bicubic")
        images = smooth + 0.2 * torch.randn(smooth.shape, generator=generator)
        images = (255 * images.clamp(0, 1)).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        with torch.inference_mode():
            expected = graph(images)[0]
        found = torch.from_numpy(session.run(["depth"], {"image": images.numpy()})[0])
        # NaN on either side makes this NaN, which passes no comparison.
        differences.append(float((found - expected).abs().max()) if found.shape == expected.shape else float("inf"))
    return float(torch.tensor(differences).max())


def _hint(size: tuple[int, int] | None) -> str:
    """The end of an error: what else may be tried."""
    return "" if size else ": it may with a fixed --size H W"


def _sizes(model: DepthTokens, stride: int) -> list[tuple[int, int]]:
    """Sizes (H, W) to compare on: one patch, a few patches and some pixels, what the tower was trained on, and a common photo."""
    return [(stride, stride), (3 * stride + 5, 4 * stride + 7), model.tower.image_size, (480, 640)]


def _describe(model: DepthTokens, fused: FusedDepth, size: tuple[int, int] | None) -> dict[str, Any]:
    """What the file says of the model, as plain values."""
    return {
        "format": FORMAT,
        "versions": versions("torch"),
        "model": {**model.settings.to_header(), "logit_scale": float(model.log_scale.exp())},
        "clip": asdict(model.clip.identity),
        "stride": fused.stride,
        "size": size,
        "precision": fused.precision,
    }


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """A context without the exporter's log lines, prints and warnings; what is wrong comes as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
