"""One photo or many through an engine, in batches, in bounded memory. Free of torch: torch and ONNX go through here alike."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
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


class Engine(NamedTuple):
    """What depth comes from, with all that was asked of it but the photos.

    Attributes:
        look: how a photo is shown.
        run: one pass.
    """

    look: Look
    run: Pass


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


Window: TypeAlias = "list[Seen | DepthTokensError]"
"""Photos that are in memory together, or what is wrong with one."""


def predicted(images: Any, engine: Engine, batch_size: int) -> Any:
    """Depth of one photo or of many, as `DepthTokens.predict` gives it.

    Args:
        images: a photo, a list, a tuple or an iterator of photos, or a tensor [B, 3, H, W].
        engine: what it comes from.
        batch_size: photos that go through the engine together at most; those that are shown in one size do.

    Returns:
        A `DepthMap`, a list of them for a list, tuple or tensor [B, 3, H, W], or an iterator that reads photos as maps are asked for.

    Raises:
        UsageError: for what is no photo, and for a batch size below 1.
        DataError: for a photo that cannot be read or shown, or that gives no depth. Of many photos, it says which by its index.
    """
    check_batch_size(batch_size)
    if is_tensor(images) and images.ndim == 4:
        return list(stream(images, engine, batch_size))
    if isinstance(images, list | tuple):
        return list(stream(images, engine, batch_size))
    if isinstance(images, Iterator) and not callable(getattr(images, "read", None)):  # file objects give lines
        return stream(images, engine, batch_size)
    return no_error(next(in_order([_seen("", images, engine.look)], engine.run)))


def check_batch_size(batch_size: int) -> None:
    """Raise UsageError for what is no number of photos."""
    if type(batch_size) is not int or batch_size < 1:
        raise UsageError(f"batch size {batch_size}: needs a whole number of photos, at least 1")


def stream(images: Iterable[Any], engine: Engine, batch_size: int) -> Iterator[DepthMap]:
    """Depth of photos, in their order; see `predicted`. What comes before a photo that cannot be read is given out before its error."""
    named_by_index = ((f"images[{index}]", image) for index, image in enumerate(images))
    for window in windows(named_by_index, engine.look, batch_size):
        yield from map(no_error, in_order(window, engine.run))


def windows(images: Iterable[tuple[str, Any]], look: Look, batch_size: int) -> Generator[Window, None, None]:
    """Read photos, as many at a time as are in memory together.

    Args:
        images: photos, each behind words that say which of many it is, "" where its name does.
        look: how a photo is shown.
        batch_size: the most photos at a time.

    Yields:
        Photos. One that cannot be read or shown is there as its error and ends its window, as does an error of the iterable.
    """
    left = iter(images)
    while True:
        window: Window = []
        seen: list[Seen] = []
        try:
            for where, image in islice(left, batch_size):
                seen.append(_seen(where, image, look))
                window.append(seen[-1])
                another = 1 + 1 / len(seen)  # of the average size of those that there are
                if sum(map(pixels, seen)) > PIXELS or another * sum(each.shown.shape[0] * each.shown.shape[1] for each in seen) > LARGEST:
                    break
        except DepthTokensError as error:
            window.append(error)
        if not window:
            return
        del seen
        yield window


def in_order(window: Window, run: Pass) -> Iterator[DepthMap | DepthTokensError]:
    """Depth of photos in their order, those of one shown size in one pass, or what is wrong with one."""
    groups: dict[tuple[int, ...], list[Seen]] = {}
    for seen in window:
        if isinstance(seen, Seen):
            groups.setdefault(seen.shown.shape, []).append(seen)
    passes = {shape: _together(group, run) for shape, group in groups.items()}
    for seen in window:
        yield next(passes[seen.shown.shape]) if isinstance(seen, Seen) else seen


def no_error(found: DepthMap | DepthTokensError) -> DepthMap:
    """A map. Raises the error that is there instead of one."""
    if isinstance(found, DepthTokensError):
        raise found
    return found


def pixels(seen: Seen | DepthTokensError) -> int:
    """How many pixels a photo has, 0 where it could not be read."""
    return seen.photo.shape[0] * seen.photo.shape[1] if isinstance(seen, Seen) else 0


def _together(group: Sequence[Seen], run: Pass) -> Iterator[DepthMap | DataError]:
    """Depth of photos in one pass; one by one where that fails, so that a photo at fault is named, and the others have their depth."""
    try:
        maps = run([seen.photo for seen in group], np.stack([seen.shown for seen in group]))
    except DataError as error:
        if len(group) == 1:
            yield _about(group[0], error)
            return
        maps = None
    if maps is None:
        for seen in group:
            yield from _together([seen], run)
        return
    for seen in group:
        try:
            found: DepthMap | DataError = next(maps)
        except DataError as error:
            found = _about(seen, error)
        yield found


def _about(seen: Seen, error: DataError) -> DataError:
    """An error of a pass, with the photo's name."""
    named_error = DataError(f"{seen.name}: {error}")
    named_error.__cause__ = error
    return named_error


def _seen(where: str, image: Any, look: Look) -> Seen:
    """Read a photo; `where` says which of many it is."""
    name = named(image)
    try:
        photo = read_photo(image)
    except DepthTokensError as error:
        raise type(error)(f"{where}: {error}" if where else str(error)) from error
    called = name if not where else where if name == THIS else f"{where}: {name}"
    try:
        return Seen(called, photo, look(photo))
    except DataError as error:
        raise DataError(f"{called}: {error}") from error
