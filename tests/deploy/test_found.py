"""Words on a command line become photos, each with its place among the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthtokens import DataError, UsageError
from depthtokens.deploy.found import find_images
from depthtokens.deploy.log import LOG, add_to_log
from depthtokens.deploy.photos import Batch
from depthtokens.deploy.written import Wanted
from helpers import run


@pytest.fixture
def tree(tmp_path):
    for name in ("1.jpg", "a/1.jpg", "a/b/2.png", "a/b/3.HEIC", "a/notes.txt", ".hidden/4.jpg", "a/._1.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    return tmp_path / "in"


def found(tree, *words, out=Path("out")):
    """Photo below `tree` -> sub-folder of its results."""
    folders = find_images([str(word) for word in words], out).folders
    return {path.relative_to(tree).as_posix(): folder.as_posix() for path, folder in folders.items()}


def test_folders_are_searched_with_all_in_them(tree):
    assert found(tree, tree) == {"1.jpg": ".", "a/1.jpg": "a", "a/b/2.png": "a/b"}
    assert find_images([str(tree)], Path("out")).left_out == [tree / "a" / "b" / "3.HEIC"]
    assert found(tree, tree / "a" / "b", tree / "1.jpg") == {"a/b/2.png": ".", "1.jpg": "."}


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.jpg", {"1.jpg": "."}),
        ("**/*.[jp][pn]g", {"1.jpg": ".", "a/1.jpg": "a", "a/b/2.png": "a/b"}),
        ("*/*.jpg", {"a/1.jpg": "a"}),
        ("a/*/*.png", {"a/b/2.png": "b"}),
    ],
)
def test_globs_keep_what_lies_behind_the_first_wildcard(tree, glob, expected):
    assert found(tree, tree / glob) == expected


def test_one_name_in_two_places(tree, tmp_path):
    assert found(tree, tree / "1.jpg", tree / "a" / "1.jpg") == {"1.jpg": ".", "a/1.jpg": "a"}
    assert found(tree, tree / "a" / "b", tree / "1.jpg", tree / "a") == {"a/b/2.png": "a/b", "1.jpg": ".", "a/1.jpg": "a"}
    (tree / "1.png").write_bytes(b"")
    folders = find_images([str(tree)], tmp_path / "out").folders
    with pytest.raises(UsageError, match=r"1\.jpg and .*1\.png have the same name and would share their results: rename one"):
        Batch(list(folders), tmp_path / "out", Wanted(["png"]), folders=folders)


def test_results_are_no_photos(tree):
    """Neither those of this run's folder, nor of other runs, nor those that lie beside the photos."""
    photos = found(tree, tree)
    for name in ("depth/1_depth.png", "depth/a/1_depth.png", "older/1_side.png", "older/a/1_side.png", "a/1_side.png", "1_side.png"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"")
    (tree / "older" / LOG).write_bytes(b"")
    add_to_log(tree / LOG, {"files": {"1_side.png": 0, "a/1_side.png": 0}, "settings": {}})
    for words in ((tree,), (tree / "**" / "*.jpg", tree / "**" / "*.png")):
        assert found(tree, *words, out=tree / "depth") == photos
    assert found(tree, tree / "older") == {"older/1_side.png": ".", "older/a/1_side.png": "a"}  # as asked
    with pytest.raises(DataError, match="no image at"):
        find_images([str(tree / "depth" / "**" / "*.jpg")], tree / "depth")


def test_the_verb(capsys, tiny_clip, tmp_path):
    from PIL import Image

    from depthtokens import DepthTokens

    DepthTokens(tiny_clip, depth="learned:5", predict_side=64).save(tmp_path / "tokens.safetensors")
    for name in ("1.png", "a/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(tmp_path / "in" / name)
    words = ("predict", tmp_path / "tokens.safetensors", tmp_path / "in", "--out", tmp_path / "in" / "depth")
    assert run(capsys, *words)[0] == 0
    code, _, err = run(capsys, *words, "--resume")
    made = {path.relative_to(tmp_path / "in" / "depth").as_posix() for path in (tmp_path / "in" / "depth").rglob("*.png")}
    assert code == 0 and made == {"1_depth.png", "1_side.png", "a/1_depth.png", "a/1_side.png"}, err


def test_photos_by_their_endings(tmp_path):
    for name in ("b.JPG", "a.jfif", "c.webp", "d.HEIC", "e.cr2", "notes.txt", "._b.JPG", ".hidden.png", "sub/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_images([str(tmp_path)], Path("out"))
    assert sorted(path.name for path in found.folders) == ["a.jfif", "b.JPG", "c.webp", "f.png"]
    assert sorted(path.name for path in found.left_out) == ["d.HEIC", "e.cr2"]
