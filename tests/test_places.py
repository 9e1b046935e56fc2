"""Paths in files that go to others: the last part alone."""

from __future__ import annotations

import pytest

from depthtokens.places import for_others, last_part


@pytest.mark.parametrize(("text", "told"), [
    ("/home/me/x/tiny.pt", "tiny.pt"), ("runs/a", "a"), ("tiny.pt", "tiny.pt"), ("folder:/home/me/x", "folder:x"),
    ("folder:x/", "folder:x"),
    ("nyu:/data/nyu.mat", "nyu:nyu.mat"), ("nyu:test=/home/me/list.txt", "nyu:list.txt"),
    ("scenes", "scenes"), ("scenes:road", "scenes:road"),
    ("hf-hub:org/model", "hf-hub:org/model"), ("hf:ann/rooms@v1", "hf:ann/rooms@v1"),
    ("hf:/home/me/siglip", "hf:siglip"), ("hf:./clips/siglip@2", "hf:siglip@2"), ("hf:~/siglip/", "hf:siglip"),
    ("ViT-B-32", "ViT-B-32"), ("openai", "openai"), ("~me/x.pt", "x.pt"), ("~", ""), ("~me", ""),
    (r"C:\Users\me\x.pt", "x.pt"), ("C:/Users/me/x.pt", "x.pt"), (r"folder:C:\Users\me\rooms", "folder:rooms"), ("folder:C:\\", "folder:"),
    (r"\\server\share\x", "x"), ("/", ""), ("../..", ""), ("", ""), ("store:/a/b", "store:b"),
])  # fmt: skip
def test_last_part(text, told):
    assert last_part(text) == told and last_part(told) == told


def test_for_others():
    values = {
        "experiment": {"data": "folder:/home/me/x", "out": "runs/me", "list_file": None, "clip": "/home/me/c.pt", "weights": "openai",
                       "template": "/near {depth}", "depth": "/near/by|~/far", "epochs": 3, "crop": (64, 96)},
        "row": "nyu/learned-7", "deep": [{"anything": "/home/me/secret"}, "~/also", "a/b", "1:2"], "loss": [0.5, 1.0],
    }  # fmt: skip
    assert for_others(values) == {
        "experiment": {"data": "folder:x", "out": "me", "list_file": None, "clip": "c.pt", "weights": "openai",
                       "template": "/near {depth}", "depth": "/near/by|~/far", "epochs": 3, "crop": [64, 96]},
        "row": "nyu/learned-7", "deep": [{"anything": "secret"}, "also", "a/b", "1:2"], "loss": [0.5, 1.0],
    }  # fmt: skip
    assert for_others(for_others(values)) == for_others(values)
