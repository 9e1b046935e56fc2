"""Depth of many photos: the next ones are read, and the last ones written, while it is computed. Free of torch."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.images import Photo
from ..depth.batches import PIXELS, Engine, Pass, Window, in_order, pixels, windows
from ..depth.depthmap import DepthMap
from ..errors import DepthTokensError

Found: TypeAlias = "Generator[DepthMap | DepthTokensError, None, None]"
"""Maps of photos in their order, or what is wrong with one."""
Depths: TypeAlias = "Callable[[Iterable[Photo]], Found]"
"""From photos to their maps."""
AHEAD = 2
"""Batches that are read before they are asked for, and maps that are computed."""
BLOCK = 2**26
"""Bytes, more than glibc keeps."""
_END: Any = object()


def depths(images: Iterable[Photo], engine: Engine, batch_size: int) -> Found:
    """Depth of photos in their order. One thread reads and one computes, both ahead of the caller, who writes.

    Photos that are read, and whose maps the caller is not done with, have `PIXELS` pixels together but for the last of them. Both threads
    end when this is closed.

    Args:
        images: the photos; the thread that reads takes them.
        engine: what depth comes from.
        batch_size: photos that go through it together at most.

    Yields:
        A map, with which the caller is done when it asks for the next, or what is wrong with a photo.
    """
    room = _Room()

    def admitted() -> Iterator[tuple[str, Photo]]:
        for image in images:
            yield "", image
            if not room.wait():
                return

    def look(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
        shown = engine.look(photo)
        room.take(photo.shape[0] * photo.shape[1])
        return shown

    def computed() -> Generator[tuple[int, DepthMap | DepthTokensError], None, None]:
        with closing(ahead(windows(admitted(), look, batch_size))) as ready:
            for window in ready:
                yield from _sized(window, engine.run)
                del window  # here and below: the next is waited for, and what is kept for nothing may be hundreds of megabytes

    # Reading an image silences warnings for a while, for all threads and so perhaps, by two of them, for good.
    with _large_blocks(), warnings.catch_warnings(), closing(ahead(computed())) as found:
        try:
            for size, depth in found:
                yield depth
                del depth
                room.take(-size)
        finally:
            room.close()


def ahead(items: Generator[Any, None, None], most: int = AHEAD) -> Generator[Any, None, None]:
    """What a generator yields, made by a thread of its own, up to `most` items ahead; an error comes in its item's place.

    When this is closed, the thread ends after the item that it is at, and the generator is closed.
    """
    thread = ThreadPoolExecutor(1)
    try:
        under_way = deque(thread.submit(next, items, _END) for _ in range(most))
        while (item := under_way.popleft().result()) is not _END:
            under_way.append(thread.submit(next, items, _END))
            yield item
            del item
    finally:
        thread.shutdown(cancel_futures=True)
        items.close()


class _Room:
    """For so many pixels as may be in memory together. Who reads waits while there are more."""

    def __init__(self) -> None:
        self.taken, self.closed, self.changed = 0, False, threading.Condition()

    def take(self, count: int) -> None:
        """Count pixels that were read, or, below 0, that nobody needs any more."""
        with self.changed:
            self.taken += count
            self.changed.notify_all()

    def wait(self) -> bool:
        """Wait until more may be read; whether any are to be read at all."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or self.taken <= PIXELS)
        return not self.closed

    def close(self) -> None:
        """Have nobody wait any more, and nothing more be read."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()


@contextmanager
def _large_blocks() -> Iterator[None]:
    """Have Pillow take memory for large images in blocks that the system gets back: of smaller ones, each thread's allocator keeps some."""
    memory: Any = Image.core  # type: ignore[attr-defined]  # Pillow documents it, and its types do not know it
    before = memory.get_block_size()
    memory.set_block_size(BLOCK)
    try:
        yield
    finally:
        memory.set_block_size(before)


def _sized(window: Window, run: Pass) -> Iterator[tuple[int, DepthMap | DepthTokensError]]:
    """Depth of photos that were read, each behind its photo's pixels."""
    sizes, found = [pixels(seen) for seen in window], in_order(window, run)
    for size in sizes:
        yield size, next(found)
