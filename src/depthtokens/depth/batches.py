"""One photo or many through an engine, in batches, in bounded memory. Free of torch: torch and ONNX go through here alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data.images import LARGEST, THIS, is_tensor, named, read_photo
from ..errors import DataError, DepthTokensError, UsageError
from .depthmap import DepthMap

Look = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""From a photo [H, W, 3] to what CLIP is shown of it [h, w, 3]; raises DataError for one that it cannot be shown."""
Pass = Callable[[Sequence[NDArray[np.uint8]], NDArray[np.uint8]], Iterator[DepthMap]]
"""From photos, and what CLIP is shown of them [B, h, w, 3], to their depth maps. Whatever takes all photos together is done before it
returns; what belongs to one photo, when its map is asked for. Raises DataError without a name."""
Many: TypeAlias = "list[Any] | tuple[Any, ...]"
"""Several photos."""
PIXELS = 50_000_000
"""Of photos that are kept in memory together, unless one alone has more; of what CLIP is shown, `LARGEST`."""


class Seen(NamedTuple):
    """A photo that was read.

    Attributes:
        name: what errors call it.
        photo: [H, W, 3] uint8.
        shown: [h, w, 3] uint8, what CLIP is shown.
    """

    name: str
    photo: NDArray[np.uint8]
    shown: NDArray[np.uint8]


def predicted(images: Any, look: Look, run: Pass, batch_size: int) -> Any:
    """Depth of one photo or of many, as `DepthTokens.predict` gives it.

    Args:
        images: a photo, a list, a tuple or an iterator of photos, or a tensor [B, 3, H, W].
        look: how a photo is shown.
        run: the engine.
        batch_size: photos that go through the engine together at most; those that are shown in one size do.

    Returns:
        A `DepthMap`, a list of them for a list, tuple or tensor [B, 3, H, W], or an iterator that reads photos as maps are asked for.

    Raises:
        UsageError: for what is no photo, and for a batch size below 1.
        DataError: for a photo that cannot be read or shown, or that gives no depth. Of many photos, it says which by its index.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise UsageError(f"batch size {batch_size}: needs a whole number of photos, at least 1")
    if is_tensor(images) and images.ndim == 4:
        return list(stream(images, look, run, batch_size))
    if isinstance(images, list | tuple):
        return list(stream(images, look, run, batch_size))
    if isinstance(images, Iterator) and not callable(getattr(images, "read", None)):  # file objects give lines
        return stream(images, look, run, batch_size)
    return next(in_order([_seen(images, None, look)], run))


def stream(images: Iterable[Any], look: Look, run: Pass, batch_size: int) -> Iterator[DepthMap]:
    """Depth of photos, in their order; see `predicted`. What comes before a photo that cannot be read is given out before its error."""
    numbered = enumerate(images)
    fault: DepthTokensError | None = None
    while fault is None:
        window: list[Seen] = []
        try:
            for index, image in islice(numbered, batch_size):
                window.append(_seen(image, index, look))
                another = 1 + 1 / len(window)  # of the average size of those that there are
                if _pixels(seen.photo for seen in window) > PIXELS or another * _pixels(seen.shown for seen in window) > LARGEST:
                    break
        except DepthTokensError as error:
            fault = error
        yield from in_order(window, run)
        if not window:
            break
    if fault:
        raise fault


def in_order(window: Sequence[Seen], run: Pass) -> Iterator[DepthMap]:
    """Depth of photos in their order, those of one shown size in one pass."""
    groups: dict[tuple[int, ...], list[Seen]] = {}
    for seen in window:
        groups.setdefault(seen.shown.shape, []).append(seen)
    passes = {shape: _together(group, run) for shape, group in groups.items()}
    for seen in window:
        yield next(passes[seen.shown.shape])


def _together(group: Sequence[Seen], run: Pass) -> Iterator[DepthMap]:
    """Depth of photos in one pass; one by one where that fails, so that a photo at fault is named, and the others have their depth."""
    maps = None
    try:
        maps = run([seen.photo for seen in group], np.stack([seen.shown for seen in group]))
    except DataError as error:
        if len(group) == 1:
            raise DataError(f"{group[0].name}: {error}") from error
    if maps is None:
        for seen in group:
            yield from _together([seen], run)
        return
    for seen in group:
        try:
            yield next(maps)
        except DataError as error:
            raise DataError(f"{seen.name}: {error}") from error


def _seen(image: Any, index: int | None, look: Look) -> Seen:
    """Read a photo; `index` says which of many it is."""
    name, where = named(image), "" if index is None else f"images[{index}]"
    try:
        photo = read_photo(image)
    except DepthTokensError as error:
        raise type(error)(f"{where}: {error}" if where else str(error)) from error
    called = name if not where else where if name == THIS else f"{where}: {name}"
    try:
        return Seen(called, photo, look(photo))
    except DataError as error:
        raise DataError(f"{called}: {error}") from error


def _pixels(arrays: Iterable[NDArray[np.uint8]]) -> int:
    """How many pixels images have together."""
    return sum(array.shape[0] * array.shape[1] for array in arrays)
