"""What tests of several rooms share: where data lies, one command run, small inputs, the shape of a refusal."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from depthtokens import DepthTokensError
from depthtokens.cli import main
from forked import python

TESTS = Path(__file__).parent
SHARED = TESTS.parents[1] / "shared"
"""Real NYUv2 and KITTI files and published tables, where a machine has them; the project works without."""
REFERENCE = TESTS / "reference"
needs_data = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the real NYUv2 and KITTI files are not on this machine")


def _may_mount():
    try:
        return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
    except OSError:
        return False


not_root = pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="root may read and write everything: run as a user of less rights"
)
needs_mount = pytest.mark.skipif(not _may_mount(), reason="needs the right to mount a small disk")

TINY_CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


def load_script(path: Path):
    """A Python file outside the package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(capsys, *words):
    """Exit code, standard output and standard error of one command."""
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *words, code=2):
    """What a command says when it refuses: one line on standard error, nothing on standard output, no traceback."""
    found, out, err = run(capsys, *words)
    lines = err.strip().splitlines()
    assert found == code and not out and len(lines) == 1 and lines[0].startswith("depthtokens: "), (found, out, err)
    return lines[0].removeprefix("depthtokens: ")


KILLED = """
import os, sys
from depthtokens.cli import main
from forked import python
def watch(event, arguments):
    if event == "os.rename" and os.path.basename(arguments[1]) == sys.argv[1]:
        os._exit(9)
sys.addaudithook(watch)
main(sys.argv[2:])
"""


def killed(name, *words):
    """Run a command in a process that dies, as of kill -9, just before a file of that name would be put into its place."""
    code, _, err = python(KILLED, name, *words)
    assert code == 9, (code, err)


def one_by_one(predict):
    """What `pipeline.depths` is of an engine, without threads, of a stand-in for a model."""

    def depths(images):
        for image in images:
            try:
                yield predict(image)
            except DepthTokensError as error:
                yield error

    return depths


def photo(*size):
    """A photo of noise, uint8 [H, W, 3]."""
    return np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)


def make_model(clip, **changes):
    """A model with settings under which a small CLIP learns within a few steps."""
    from depthtokens import DepthTokens

    return DepthTokens(clip, **{"depth": "learned:5", "dense": "value", "scale": 50, "depth_range": (0.5, 10.0), **changes})
