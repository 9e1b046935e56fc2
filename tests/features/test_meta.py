"""A store's description of itself: what it must not say, even under a seal of its own."""

from __future__ import annotations

import copy
import json

import pytest

from depthtokens.features.meta import read_meta
from depthtokens.features.store import FeatureStore
from depthtokens.files import sealed
from stores import message


@pytest.mark.parametrize(("place", "value", "why"), [
    (("data",), None, "a table is missing"), (("data", "depth_range"), [10.0], "depth_range"),
    (("data", "depth_range"), [9, 1], "no range"),
    (("data", "depth_scale"), 0, "no range"), (("data", "spec"), 3, "spec"), (("clip",), {}, "clip"), (("modes",), [], "no kind"),
    (("dtype",), "int8", "no kind"), (("image_sizes",), [[64, 96]], "no size"), (("image_sizes",), 3, "image_sizes"),
    (("channels",), 10**400, "beyond all bounds"), (("images_per_shard",), 0, "no size"), (("images_per_shard",), 3, "other images"),
    (("shards", 0, "file"), "../../etc/passwd", "no files of its own"), (("shards", 0, "images"), 9, "other images"),
    (("views", "count"), 0, "views are none"), (("views", "count"), 2**40, "no size"),
    (("views", "more"), 1, "more"), (("views",), [], "describes no store"), (("augmentation",), [], "no tables"),
    (("names", 0), {}, "names"),
])  # fmt: skip
def test_descriptions_of_no_store(store, place, value, why):
    meta = copy.deepcopy(store.meta)
    *path, last = place
    inner = meta
    for key in path:
        inner = inner[key]
    inner[last] = value
    (store.path / "meta.json").write_text(json.dumps(sealed(meta)))
    said = message(lambda: FeatureStore(store.path))
    assert "meta.json" in said and (why in said or why == "clip"), said


@pytest.mark.parametrize("missing", ["data", "clip", "names", "shards", "views", "augmentation", "channels"])
def test_descriptions_that_lack_something(store, missing):
    meta = {name: value for name, value in store.meta.items() if name != missing}
    (store.path / "meta.json").write_text(json.dumps(sealed(meta)))
    assert "describes no store" in message(lambda: read_meta(store.path))


@pytest.mark.parametrize("missing", ["depth_scale", "eval_crop", "list_file", "depth_range", "spec"])
def test_descriptions_of_unknown_data(store, missing):
    meta = copy.deepcopy(store.meta)
    del meta["data"][missing]
    (store.path / "meta.json").write_text(json.dumps(sealed(meta)))
    assert "describes no store" in message(lambda: FeatureStore(store.path))
