"""A store whose shards several processes make at once, each a share of them: jobs of a cluster's queue, a shell loop."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import DataError, UsageError
from ..files import locked
from ..progress import Progress, silent
from .plan import Plan
from .store import FeatureStore
from .write import Making, begin, listed_shards, make_shards, open_folder, whole_shards, write_meta


def write_share(
    plan: Plan,
    out: str | Path,
    share: tuple[int, int],
    *,
    batch_size: int = 8,
    workers: int = 2,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> tuple[int, int]:
    """Make what is missing of a share of a store's shards; other processes may make theirs meanwhile, and `finish` joins them.

    Args:
        plan: as for `write.write`, the same in all processes.
        out: as for `write.write`.
        share: (I, N): this is the I-th of N shares, 1 to N.
        batch_size: as for `write.write`.
        workers: as for `write.write`.
        device: as for `write.write`.
        progress: called after every image.

    Returns:
        How many shards the share has, and the whole store.

    Raises:
        UsageError: for a share that is none, or where `out` holds something else.
        DepthTokensError: as `write.write`.
    """
    part, parts = share
    if not 1 <= part <= parts:
        raise UsageError(f"shard {part}/{parts}: write 1/{parts} to {parts}/{parts}" if parts > 0 else f"shard {part}/{parts}: write 1/4")
    out = open_folder(out)
    with locked(out, wait=True):  # no longer than it takes to begin
        meta = begin(plan, out)
    making = Making(out, meta["images_per_shard"], batch_size, workers, str(device))
    shards = -(-plan.images // making.per_shard)
    numbers = range(part - 1, shards, parts)
    make_shards(plan, making, numbers, whole_shards(out, listed_shards(out), numbers), progress=progress)
    return len(numbers), shards


def finish(plan: Plan, out: str | Path) -> FeatureStore:
    """Make a store of shards that are all there.

    Args:
        plan: that they were made by.
        out: the store's folder.

    Raises:
        UsageError: where `out` holds something else.
        DataError: where shards are missing.
    """
    out = open_folder(out)
    with locked(out):
        meta = begin(plan, out)
        listed = listed_shards(out)
        done = whole_shards(out, listed)
        shards = -(-plan.images // meta["images_per_shard"])
        if missing := [str(number) for number in range(shards) if number not in done]:
            some = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
            raise DataError(
                f"{out} lacks {len(missing)} of {shards} shards ({some}): run the --shard I/N that make them, then --finish again"
            )
        if not listed or set(done.values()) != set(listed.values()):
            write_meta(out, meta, done)
        return FeatureStore(out)
