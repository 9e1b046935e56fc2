"""Work spread over the nodes of a cluster: as done by one process, whatever dies."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import depthtokens
import pieces
from depthtokens import DepthTokensError, UsageError, spread
from depthtokens.deploy import many
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write
from depthtokens.reproduce.run import reproduce
from depthtokens.reproduce.settings import Reproduction
from depthtokens.spread import Cluster, here, on_cluster
from helpers import TESTS, make_model, photo, run
from stores import make_folder, opened, small_shards

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'depthtokens[ray]'")


class Nodes:
    """A cluster of three nodes with a core each in this machine."""

    def __init__(self):
        from ray.cluster_utils import Cluster as Processes

        self.processes = Processes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.others = [self.processes.add_node(num_cpus=1) for _ in range(2)]
        self.cluster = Cluster(self.processes.address)

    def kill(self):
        """As a machine that goes off."""
        self.processes.remove_node(self.others.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def nodes():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(Path(depthtokens.__file__).parents[1]), str(TESTS)]))
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Nodes()
        yield nodes
        nodes.processes.shutdown()


@pytest.fixture
def three(nodes):
    """With three nodes, whatever the test before has killed."""
    while len(nodes.others) < 2:
        nodes.others.append(nodes.processes.add_node(num_cpus=1))
    return nodes


def test_square(three, tmp_path):
    with on_cluster(three.cluster, pieces.square, tmp_path) as run:
        assert sorted(run(range(5))) == [(n, n * n) for n in range(5)]
    assert not list(tmp_path.iterdir())


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def dead(three, monkeypatch):
    """The workers that were found dead: a node is killed when it is at work and the first piece has come from another."""
    dead, run, bury = [], spread._Crew.run, spread._Crew.bury

    def deadly(crew, pieces):
        for number, found in enumerate(run(crew, pieces)):
            if number == 0 and len(three.others) == 2:
                crew.ray.wait(list(crew.beginning), num_returns=len(crew.beginning))
                three.kill()
            yield found

    monkeypatch.setattr(spread._Crew, "run", deadly)
    monkeypatch.setattr(spread._Crew, "bury", lambda crew, worker: dead.append(worker) or bury(crew, worker))
    return dead


def test_here():
    assert list(here(pieces.square())([3, 1])) == [(3, 9), (1, 1)]


def test_features_are_those_of_one_process(three, dead, tiny_clip, tmp_path):
    data = opened(make_folder(tmp_path / "data", [(128, 160)] * 16))
    planned = small_shards(plan(tiny_clip, data, Views(mirrored=True), ["layer4", "value"]))
    write(planned, tmp_path / "one", workers=0)
    write(planned, tmp_path / "many", workers=0, cluster=three.cluster).check()
    assert len(dead) == 1 and len(bytes_of(tmp_path / "one")) == 8 + 2
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")


def test_depth_is_that_of_one_process(three, dead, tiny_clip, tmp_path, capsys, monkeypatch):
    """And the log as well, so that a later run knows what is there."""
    monkeypatch.setattr(many, "PHOTOS", 2)
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    for i in range(12):
        Image.fromarray(photo(40, 50) // (i + 1)).save(tmp_path / "photos" / ("inner" if i % 2 else "") / f"{i}.png")
    (tmp_path / "photos" / "torn.png").write_bytes(b"no photo")
    make_model(tiny_clip).save(tmp_path / "tokens.safetensors")
    words = ["predict", tmp_path / "tokens.safetensors", tmp_path / "photos", "--formats", "npy", "--device", "cpu", "--json"]
    one = run(capsys, *words, "--out", tmp_path / "one")
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "0_depth.npy").write_bytes(b"of before")
    spread_words = [*words, "--out", tmp_path / "many", "--ray", three.cluster.address]
    found = run(capsys, *spread_words, "--overwrite")
    assert found[0] == 1 == one[0] and len(dead) == 1 and "torn.png" in found[2]
    rows, others = (json.loads(text.replace("/many/", "/one/")) for text in (found[1], one[1]))
    assert rows["images"] == others["images"] and rows["failed"] == others["failed"]
    counts = ("images", "predicted", "kept", "failed", "shown", "min", "max")
    assert all(rows["summary"][name] == others["summary"][name] for name in counts)
    maps = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.npy")]
    assert len(maps) == 12 and all((tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in maps)
    (tmp_path / "many" / "0_depth.npy").unlink()
    again = json.loads(run(capsys, *spread_words, "--resume")[1])["summary"]
    assert (again["predicted"], again["kept"], again["failed"]) == (1, 11, 1)


def kitti_tree(root):
    """Two training frames and a test frame in KITTI's layout, with lists."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 1)):
        lines = []
        for i in range(count):
            for kind, values in (("image", photo(352, 1216)), ("depth", rng.integers(256, 9000, (352, 1216)).astype(np.uint16))):
                Image.fromarray(values).save(root / f"{split}{i}-{kind}.png")
            lines.append(f"{split}{i}-image.png {split}{i}-depth.png 721.5")
        (root / f"{split}.txt").write_text("\n".join(lines))
    return {"data": (f"kitti:{root}",), "list_file": tuple(f"kitti:{split}={root / split}.txt" for split in ("train", "test"))}


def test_figures_are_those_of_one_process(three, dead, nyu_tree, tiny_file, tmp_path, monkeypatch):
    """Rows that lend and borrow tokens, that are the same under two names, and that have a trunk for each seed."""
    kitti = kitti_tree(tmp_path)
    settings = {
        "data": (f"nyu:{nyu_tree}", *kitti["data"]), "list_file": kitti["list_file"], "clip": str(tiny_file), "seeds": "0..1", "steps": 2,
        "batch_size": 4, "workers": 0, "device": "cpu",
    }  # fmt: skip
    names = ("paper/t3/nyu/learned-7", "effects/nyu/learned-7", "effects/nyu/depth-7", "effects/nyu/depth-7 adapted",
             "effects/kitti/depth-7", "effects/kitti/from nyu, metres")  # fmt: skip
    some = [row for row in Reproduction(**settings).rows() if row.name in names]
    monkeypatch.setattr(Reproduction, "rows", lambda self: some)
    one, other = (Reproduction(**settings, out=str(tmp_path / name)) for name in ("one", "many"))
    expected, found = reproduce(one), reproduce(other, cluster=three.cluster)
    assert len(dead) == 1 and len(found.rows) == len(names) + 4
    for mine, theirs in zip(found.rows, expected.rows, strict=True):
        assert mine.row == theirs.row and replace(mine.result, minutes=0) == replace(theirs.result, minutes=0)
    assert bytes_of(tmp_path / "many" / "tokens") == bytes_of(tmp_path / "one" / "tokens")


def test_what_sees_other_files_is_refused(three, tiny_clip, tmp_path, message, monkeypatch):
    """By name; and nobody is left waiting for it."""
    folder = make_folder(tmp_path / "data", [(64, 96)] * 4)
    planned = small_shards(plan(tiny_clip, opened(folder), Views(), ["value"]))
    one = Cluster(three.cluster.address, 1)

    def refused(**changes):
        return message(lambda: write(planned, tmp_path / "store", workers=0, cluster=one, **changes))

    (folder / "depth" / "000.png").write_bytes((folder / "depth" / "001.png").read_bytes())
    other = refused()
    assert other.startswith("node ") and platform.node() in other and "cannot take part: it sees other data than this machine" in other
    planned.clip.fingerprint, kept = "another", planned.clip.fingerprint
    assert "it sees other CLIP and data than" in refused()
    planned.clip.fingerprint = kept
    monkeypatch.setattr(spread, "_code", lambda: "depthtokens 9.9 (00000000)")
    assert f"it has depthtokens {depthtokens.__version__} (" in (said := refused()) and "this machine depthtokens 9.9 (00000000)" in said
    monkeypatch.undo()
    monkeypatch.setattr(spread, "temporary", lambda target: spread.contextmanager(lambda: iter([(tmp_path / "gone", None)]))())
    monkeypatch.setattr(spread.os, "utime", lambda path: None)
    assert f"it does not see {tmp_path} of this machine: give a folder that all nodes share" in refused()


def test_pieces_that_fail(three, tmp_path, message):
    def run(recipe):
        with on_cluster(three.cluster, recipe, tmp_path) as run:
            list(run(range(4)))

    assert message(lambda: run(pieces.faulty)).endswith("cannot be read")
    assert "3 workers died of one piece of work" in message(lambda: run(pieces.fatal), DepthTokensError)
    with pytest.raises(UsageError, match="no node of the cluster has 2 cores, which a worker takes"), \
            on_cluster(Cluster(three.cluster.address, 2), pieces.square, tmp_path):  # fmt: skip
        pass
    for wrong in ({"cpus": 0}, {"cpus": float("nan")}, {"gpus": -1}):
        with pytest.raises(UsageError, match="a worker needs"):
            Cluster("auto", **wrong)


STOPPED = """
import sys
from pathlib import Path
import pieces
from depthtokens.cli import _terminate
from depthtokens.spread import Cluster, on_cluster
import signal
signal.signal(signal.SIGTERM, _terminate)
with on_cluster(Cluster(sys.argv[1]), pieces.endless, Path(sys.argv[2])) as run:
    import ray
    print(ray.get_runtime_context().get_node_id(), flush=True)
    for _ in run([1, 2]):
        pass
"""


def processes(word):
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word in path.read_bytes().decode(errors="replace"):
                found.add(path.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_stopped_leaves_no_process(nodes, by, tmp_path):
    """Of a cluster that it started itself: Ctrl-C goes to all processes in the terminal's group, SIGTERM to one."""
    environment = {**os.environ, "TMPDIR": tempfile.mkdtemp(prefix="r")}
    command = [sys.executable, "-c", STOPPED, "local", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True, start_new_session=True) as process:
        assert process.stdout.readline()
        deadline = time.monotonic() + 60
        while not any(b"ray::" in line for line in [b""]) and time.monotonic() < deadline and not processes("_Worker"):
            time.sleep(0.1)
        assert processes(environment["TMPDIR"])
        os.killpg(process.pid, by) if by == signal.SIGINT else process.send_signal(by)
        process.wait(30)
    deadline = time.monotonic() + 10
    while (left := processes(environment["TMPDIR"])) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
