"""Finding files: linked folders, hidden files, spellings, endings, names that no file can have."""

import unicodedata

from depthtokens.data.find import Finder, is_file, is_folder, visible, walk
from helpers import not_root

NFC = "Küche"
NFD = unicodedata.normalize("NFD", NFC)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_links_are_followed_and_circles_end(tmp_path):
    touch(tmp_path / "root/a/1"), touch(tmp_path / "other/2")
    (tmp_path / "root/linked").symlink_to(tmp_path / "other")
    (tmp_path / "root/a/up").symlink_to(tmp_path / "root")
    (tmp_path / "other/back").symlink_to(tmp_path / "root/a")
    (tmp_path / "root/0").symlink_to(tmp_path / "root/a")
    (tmp_path / "root/broken").symlink_to(tmp_path / "nothing")
    found = sorted(path.relative_to(tmp_path / "root").as_posix() for path in walk(tmp_path / "root"))
    assert found == ["a/1", "broken", "linked/2"], "each real folder once, by its own name where it has one"


def test_hidden_files_are_skipped(tmp_path):
    for name in ("a.png", "._a.png", ".DS_Store", ".ipynb_checkpoints/a.png", "b/._c.png", "b/c.png"):
        touch(tmp_path / name)
    assert visible(tmp_path) == [tmp_path / "a.png"] and visible(tmp_path / "none") == []
    assert sorted(walk(tmp_path)) == [tmp_path / "a.png", tmp_path / "b/c.png"]


@not_root
def test_unreadable_folders_are_not_passed_over(tmp_path, message):
    (tmp_path / "locked").mkdir(mode=0)
    assert "cannot read folder" in message(lambda: list(walk(tmp_path)))


def test_names_in_any_spelling_and_ending(tmp_path):
    there = touch(tmp_path / f"{NFD}/Bild {NFC}.PNG")
    find = Finder([tmp_path / "none", tmp_path])
    for name in (f"{NFC}/Bild {NFD}.png", f"{NFC}\\Bild {NFC}.png", f"/{NFD}/Bild {NFC}.Png", f"./{NFC}/Bild {NFC}.PNG"):
        assert find(name) == there
    assert find(f"{NFC}/bild {NFC}.png") == tmp_path / "none" / f"{NFC}/bild {NFC}.png", "only endings go without case"
    assert find("x.png", f"{NFC}/Bild {NFC}.png") == there


def test_absolute_names_are_tried_as_they_are_then_below(tmp_path):
    outside, inside = touch(tmp_path / "outside/a.png"), touch(tmp_path / "root/kitchen/a.png")
    find = Finder([tmp_path / "root"])
    assert find(str(outside)) == outside and find("/kitchen/a.png") == inside
    assert find("/kitchen/none.png") == tmp_path / "root/kitchen/none.png"


def test_names_that_no_file_can_have(tmp_path):
    for name in ("n" * 5000, "a\0b", "n" * 300 + "/x"):
        assert not is_file(tmp_path / name) and not is_folder(tmp_path / name)
        assert Finder([tmp_path])(name).name == (tmp_path / name).name
