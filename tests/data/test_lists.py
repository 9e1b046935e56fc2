"""List files: every way in which people's lists are written, read or refused by name."""

import pytest

from depthtokens.data.lists import find_list, read_list, read_table


def test_lists(tmp_path, message):
    path = tmp_path / "list.txt"
    path.write_text("/kitchen/a.jpg /kitchen/a.png 518.8579\n\nb.jpg None\n")
    assert read_list(path) == [("/kitchen/a.jpg", "/kitchen/a.png"), ("b.jpg", "None")]
    path.write_text("a.jpg a.png 518\nonly_one\n")
    assert "list.txt line 2: expected 'image depth focal', found 1 words" in message(lambda: read_list(path))
    path.write_text("my photo.jpg my depth.png 518\n")
    assert "found 5 words (names with blanks cannot be listed so)" in message(lambda: read_list(path))
    path.write_text("\n")
    assert "names no pairs" in message(lambda: read_list(path))
    path.write_bytes(b"\xff\xd8\xff\xe0")
    assert "cannot read" in message(lambda: read_list(path))
    assert "no such file" in message(lambda: read_list(tmp_path / "absent.txt"))
    assert "cannot read list" in message(lambda: read_list(tmp_path / ("long" * 100)))
    path.write_text("a.jpg,a.png\nb.jpg;b.png;518\n")
    assert read_list(path) == [("a.jpg", "a.png"), ("b.jpg", "b.png")]
    path.write_text("a.jpg a.png dense/a.png  \r\n\r\n")
    assert read_list(path) == [("a.jpg", "a.png")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", " , "])
@pytest.mark.parametrize("header", ["image{}depth", "Image{} DEPTH ", "n{}depth{}note{}image"])
def test_tables_as_people_write_them(tmp_path, encoding, separator, header):
    path = tmp_path / "test.csv"
    lines = ["Küche 1.png{}d.png", "", " b.png {} e.png "] if header[0] != "n" else ["x{}d.png{}{}Küche 1.png", "{}e.png{}!{}b.png"]
    text = "\r\n".join([header, *lines]).replace("{}", separator)
    path.write_bytes(f"{text}\r\n".encode(encoding))
    assert read_table(path) == [("Küche 1.png", "d.png"), ("b.png", "e.png")]


def test_tables_that_are_none(tmp_path, message):
    path = tmp_path / "test.csv"
    for text, found in (
        ("", "header image,depth"), ("image,depth\n", "header image,depth"), ("rgb,depth\na,b\n", "found 'rgb,depth'"),
        ("image,depth\na.png,b.png\n\nc.png\n", "line 4 lacks one"), ("image,depth\na.png, \n", "line 2 lacks one"),
    ):  # fmt: skip
        path.write_text(text)
        assert found in message(lambda: read_table(path))
    path.write_bytes("image,depth\n".encode("utf-16-le"))
    assert "not text in UTF-8 (but UTF-16 without a mark?): save it as that" in message(lambda: read_table(path))
    path.write_bytes("image,depth\nKüche.png,b.png".encode("latin-1"))
    assert "not text in UTF-8: save it as that" in message(lambda: read_table(path))


def test_lists_are_found_in_the_published_codes_folder(tmp_path):
    assert find_list(tmp_path, ["a.txt", "b.txt"]) is None
    (tmp_path / "train_test_inputs").mkdir()
    (tmp_path / "train_test_inputs/a.txt").write_text("")
    assert find_list(tmp_path, ["a.txt", "b.txt"]) == tmp_path / "train_test_inputs/a.txt"
    (tmp_path / "b.txt").write_text("")
    assert find_list(tmp_path, ["a.txt", "b.txt"]) == tmp_path / "b.txt", "ROOT goes before"
