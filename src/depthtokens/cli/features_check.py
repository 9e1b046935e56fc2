"""The verb `features check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from .console import ProgressBar, parse, print_json
from .flags import JsonFlag


@dataclass(frozen=True, kw_only=True)
class FeaturesCheck(JsonFlag):
    """Read a store of patch features through, compare every checksum, and say whether the data it was made from has changed."""

    store: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """A folder that `depthtokens features` wrote."""


def main(arguments: Sequence[str]) -> None:
    """Parse, check, print; damage and changed data are errors."""
    args = parse(FeaturesCheck, "features check", arguments)

    from ..features.store import FeatureStore
    from ..files import size_text

    store = FeatureStore(args.store)
    with ProgressBar() as progress:
        store.check(progress)
    data = store.check_data()
    meta = store.meta
    if args.json:
        keys = ("clip", "modes", "dtype", "precision", "views", "versions", "key")
        found = {"images": store.images, "bytes": store.bytes, "shards": len(meta["shards"]), "data": store.data, "split": store.split}
        print_json({**found, "data_state": data, **{key: meta[key] for key in keys}})
        return
    views = "the plain image" if store.views.count == 1 else f"{store.views.count} random views"
    print(f"{store.path}: {store.images} images, {len(meta['shards'])} shards, {size_text(store.bytes)}, all checksums as written")
    print(f"  {store.data} '{store.split}', {views} of each{', mirrored too' if store.views.mirrored else ''}; data {data}")
    print(f"  CLIP {meta['clip']['name']} ({store.fingerprint[:12]}), dense {', '.join(store.modes)}, {meta['dtype']}")
