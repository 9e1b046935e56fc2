"""README and the site's pages: every command and Python block runs, page by page, in a folder that holds what the page speaks of.

A block is run as it stands, unless a comment before it, which readers do not see, says otherwise: `<!-- stand-in: NAMES -->` (`standins`),
or `<!-- not run: WHY -->`. README's are run with every test, but for blocks behind `<!-- slow -->`, which run with the pages'. Of commands
that are not ours it is tried that what they name is there.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import depthtokens as dt
from depthtokens.demo import TOKENS
from depthtokens.scenes import write_folder
from forked import COMMAND, python
from helpers import photo
from standins import STAND_INS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (stand-in|not run): (.*?) -->\n)?(<!-- slow -->\n)?^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = {"ids": lambda path: path.stem}


class Block(NamedTuple):
    """A block of a page: its lines, its language, with which stand-ins it is run (None where it is not), and whether that takes long."""

    language: str
    text: str
    stand_ins: list[str] | None
    slow: bool


def blocks(page):
    """The blocks of a page, in order."""
    for kind, words, slow, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        yield Block(language, text, None if kind == "not run" else [word for word in words.split(", ") if word], bool(slow))


def code(page):
    return "\n".join(block.text for block in blocks(page))


@pytest.fixture(scope="session")
def clips(tiny_file, vit_file, tmp_path_factory):
    """Small CLIPs that stand for OpenAI's."""
    folder = tmp_path_factory.mktemp("clips")
    shutil.copy(tiny_file, folder / "resnet.pt")
    shutil.copy(vit_file, folder / "vit.pt")
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory, nyu_tree):
    """Data, photos and tokens, under the names that pages give them."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(nyu_tree, folder / "ROOT")
    for drive in ("2011_09_26_drive_0001_sync", "2011_09_26_drive_0002_sync"):  # training and test
        raw = folder / "ROOT" / "raw" / drive[:10] / drive / "image_02" / "data"
        depth = folder / "ROOT" / "data_depth_annotated" / drive / "proj_depth" / "groundtruth" / "image_02"
        for place, pixels in ((raw, photo(375, 1242)), (depth, np.full((375, 1242), 256 * 7, np.uint16))):
            place.mkdir(parents=True)
            Image.fromarray(pixels).save(place / "0000000005.png")
    Image.fromarray(photo(96, 128)).save(folder / "photo.jpg")
    for name in ("holiday", "photos"):
        (folder / name).mkdir()
        shutil.copy(folder / "photo.jpg", folder / name)
    return folder


def fill(folder, world, page):
    """Give a page's folder what it speaks of and does not make itself."""
    written = code(page)
    for path in world.iterdir():
        (folder / path.name).symlink_to(path)
    if "camera" in written and "data scenes camera" not in written:
        write_folder(folder / "camera", count=4, test=2, workers=1)
    if "--out runs/a" not in written:
        (folder / "runs" / "a").mkdir(parents=True)
        shutil.copy(TOKENS, folder / "runs" / "a" / "tokens.safetensors")
    if "clip.mp4" in written:
        film(folder / "clip.mp4")


def film(path):
    av = pytest.importorskip("av", reason="needs the extra: pip install 'depthtokens[video]'")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(photo(96, 128), format="rgb24")))
        container.mux(stream.encode())


def run_page(page, world, folder, clips, monkeypatch, slow=True):
    """Run the blocks of a page in order, with or without those that take long."""
    fill(folder, world, page)
    monkeypatch.chdir(folder)
    for block in blocks(page):
        if block.stand_ins is None or (block.slow and not slow):
            continue
        prepare = f"import standins\nstandins.stand_in({block.stand_ins!r}, {str(clips)!r})\n"
        if block.language == "python":
            done, out, err = python(prepare + block.text)
            assert done == 0, f"{block.text}\n{out}{err}"
            continue
        for line in block.text.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["depthtokens"]:
                done, out, err = python(prepare + COMMAND, *words[1:])
                assert done == 0, f"{line}\n{out}{err}"
            elif words:
                other(words)


def other(words):
    """Of a command that is not ours, see that what it names is there."""
    if words[0] == "make":
        assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in words[1:]), words
    elif words[:2] == ["pip", "install"]:
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        extras = re.findall(r"\w+", " ".join(words).partition("[")[2])
        assert words[2:] == ["."] or (extras and not set(extras) - {*known, "depthtokens"}), words
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words
    else:
        raise AssertionError(f"not known: {' '.join(words)}")


def test_readme_runs(world, tmp_path, clips, monkeypatch):
    run_page(ROOT / "README.md", world, tmp_path, clips, monkeypatch, slow=False)


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page in PAGES if code(page)], **NAME)
def test_page_runs(page, world, tmp_path, clips, monkeypatch):
    run_page(page, world, tmp_path, clips, monkeypatch)


@pytest.mark.parametrize("page", PAGES, **NAME)
def test_blocks_and_links(page):
    text = page.read_text(encoding="utf-8")
    assert len(list(blocks(page))) == len(re.findall(r"^```(?:sh|python)$", text, re.MULTILINE)), "a block is not seen"
    assert not {name for block in blocks(page) for name in block.stand_ins or ()} - STAND_INS.keys()
    linked = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text)
    assert not [link for link in linked if not _there(page.parent / link)]


def _there(path):
    """Whether a link leads anywhere: to a file, to what is drawn as the site is built, or to a notebook, which has no ending in links."""
    return path.exists() or path.parent.name == "generated" or path.with_suffix(".py").is_file()


def test_reference_has_every_public_name_with_an_example():
    written = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    for name in dt.__all__:
        assert f":: depthtokens.{name}\n" in written, name
        assert ">>>" in (getattr(dt, name).__doc__ or ""), name
