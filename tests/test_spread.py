"""Work spread over the nodes of a cluster: as done by one process, whatever dies."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import depthtokens
import pieces
from depthtokens import DepthTokensError, UsageError, spread
from depthtokens.deploy import many
from depthtokens.deploy.found import find_images
from depthtokens.deploy.log import LOG
from depthtokens.deploy.photos import Batch
from depthtokens.deploy.written import Wanted
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import Making, _Maker, write
from depthtokens.reproduce.run import reproduce
from depthtokens.reproduce.settings import Reproduction
from depthtokens.spread import Cluster, on_cluster
from helpers import TESTS, make_model, photo, refused, run
from stores import make_folder, opened, small_shards

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'depthtokens[ray]'")


class Nodes:
    """A cluster of three nodes with a core each in this machine."""

    def __init__(self):
        from ray.cluster_utils import Cluster as Processes

        self.node = {"num_cpus": 1, "object_store_memory": 10**8}  # what goes from node to node is small
        self.processes = Processes(initialize_head=True, head_node_args={**self.node, "include_dashboard": False})
        self.others = [self.add() for _ in range(2)]
        self.cluster = Cluster(self.processes.address)

    def add(self):
        return self.processes.add_node(**self.node)

    def kill(self):
        """As a machine that goes off."""
        self.processes.remove_node(self.others.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def nodes():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(Path(depthtokens.__file__).parents[1]), str(TESTS)]))
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_worker_niceness", "0")  # or else other tests go first
        nodes = Nodes()
        yield nodes
        nodes.processes.shutdown()


@pytest.fixture
def three(nodes):
    """With three nodes, whatever the test before has killed, and as many threads here as a worker with one core has."""
    while len(nodes.others) < 2:
        nodes.others.append(nodes.add())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield nodes
    torch.set_num_threads(threads)


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def dead(three, monkeypatch, tmp_path_factory):
    """The workers that were found dead: a node is killed in the middle of a piece, when the first one has come from another node."""
    at_work, node, dead = tmp_path_factory.mktemp("dead") / "at-work", three.others[-1].node_id, []
    init, run, bury = spread._Crew.__init__, spread._Crew.run, spread._Crew.bury

    def doom(crew, cluster, job):
        init(crew, cluster, replace(job, recipe=pickle.dumps(pieces.Doomed(pickle.loads(job.recipe), node, str(at_work)))))

    def deadly(crew, work):
        for found in run(crew, work):
            if len(three.others) == 2:
                three.kill()
                while len(crew.nodes()) > 2:  # or else a worker is hired for it once more
                    time.sleep(0.05)
            yield found

    monkeypatch.setattr(spread._Crew, "__init__", doom)
    monkeypatch.setattr(spread._Crew, "run", deadly)
    monkeypatch.setattr(spread._Crew, "bury", lambda crew, worker: dead.append(worker) or bury(crew, worker))
    return dead


def test_features_are_those_of_one_process(three, dead, tiny_clip, tmp_path):
    data = opened(make_folder(tmp_path / "data", [(128, 160)] * 16))
    planned = small_shards(plan(tiny_clip, data, Views(mirrored=True), ["layer4", "value"]))
    write(planned, tmp_path / "one", workers=0)
    write(planned, tmp_path / "many", workers=0, cluster=three.cluster).check()
    assert len(dead) == 1 and len(bytes_of(tmp_path / "one")) == 8 + 2
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")


def test_depth_is_that_of_one_process(three, dead, tmp_path, monkeypatch, capsys):
    """And the log as well, by which a later run knows what is there."""
    monkeypatch.setattr(many, "PHOTOS", 2)
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    for i in range(12):
        Image.fromarray(photo(40, 50) // (i + 1)).save(tmp_path / "photos" / ("inner" if i % 2 else "") / f"{i}.png")
    (tmp_path / "photos" / "torn.png").write_bytes(b"no photo")
    photos, _ = find_images([str(tmp_path / "photos")], tmp_path / "one")
    one, other, later = (Batch(list(photos), tmp_path / name, Wanted(["npy"]), photos) for name in ("one", "many", "many"))
    one.run(*pieces.mean())
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "0_depth.npy").write_bytes(b"of before")
    many.run_on(three.cluster, other, pieces.mean)
    assert len(dead) == 1 and other.failed == one.failed and "torn.png" in one.failed[0]
    assert [{**row, "files": 0} for row in other.rows] == [{**row, "files": 0} for row in one.rows]
    changing = {"seconds": 0, "images_per_second": 0}
    assert other.seconds > 0.5, "a cluster's time, not that of reading its log"
    assert other.summary() | changing == one.summary() | changing and one.summary()["predicted"] == 12
    maps = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.npy")]
    assert len(maps) == 12 and all((tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in maps)
    later.run(*pieces.mean(), resume=True)
    assert later.kept == 12 and later.rows == other.rows


def test_predict(three, tiny_clip, tmp_path, capsys):
    """The command: what was done before stays, and other settings are refused before any node is asked."""
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.fromarray(photo(40, 50)).save(tmp_path / "photos" / f"{i}.png")
    make_model(tiny_clip).save(tmp_path / "tokens.safetensors")
    words = [
        "predict",
        tmp_path / "tokens.safetensors",
        tmp_path / "photos",
        "--formats",
        "npy",
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
    ]
    assert run(capsys, *words)[0] == 0
    expected = bytes_of(tmp_path / "out")
    (tmp_path / "out" / "1_depth.npy").unlink()
    code, out, err = run(capsys, *words, "--resume", "--ray", three.cluster.address)
    assert code == 0 and "1 of 2 images predicted" in out and "1 were there before" in out, err
    assert {**bytes_of(tmp_path / "out"), LOG: 0} == {**expected, LOG: 0}
    assert "of other flip than" in refused(capsys, *words, "--resume", "--flip", "--ray", three.cluster.address)


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


def test_a_worker_folds_its_trunk_once(tiny_clip, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("depthtokens.features.write.quick", lambda tower: made.append(tower) or tower)
    planned = plan(tiny_clip, opened(make_folder(tmp_path / "data", [(64, 96)] * 4)), Views(), ["value"])
    (tmp_path / "store").mkdir()
    do = _Maker.of(planned, Making(tmp_path / "store", 2, 1, 0, "cpu"))()
    shards = [do(number) for number in range(2)]
    assert len(bytes_of(tmp_path / "store")) == len({shard.file for shard in shards}) == 2 and len(made) == 1


def test_other_data_or_another_clip_is_refused(tiny_clip, tmp_path, message):
    folder = make_folder(tmp_path / "data", [(64, 96)] * 4)
    planned = plan(tiny_clip, opened(folder), Views(), ["value"])
    recipe = _Maker.of(planned, Making(tmp_path, 2, 1, 0, "cpu"))
    (folder / "depth" / "000.png").write_bytes((folder / "depth" / "001.png").read_bytes())
    assert message(recipe).startswith("it sees other data than this machine")
    recipe.seen["CLIP"] = "another"
    assert message(recipe).startswith("it sees other CLIP and data than")


def test_what_sees_other_files_is_refused(three, tmp_path, message, monkeypatch):
    """By name: the node's, and of what differs."""

    def said(recipe=pieces.square):
        with on_cluster(three.cluster, recipe, tmp_path) as run:
            return message(lambda: list(run([1])))

    other = said(pieces.elsewhere)
    assert other.startswith("node ") and f"({platform.node()}) cannot take part: it sees other CLIP and data than this machine" in other
    with monkeypatch.context() as patched:
        patched.setattr(spread, "_code", lambda: "depthtokens 9.9 (00000000)")
        other = said()
        assert f"it has depthtokens {depthtokens.__version__} (" in other and "this machine depthtokens 9.9 (00000000)" in other
    job, unseen = spread._Job, partial(replace, seen=str(tmp_path / "gone" / "file"))
    monkeypatch.setattr(spread, "_Job", lambda *values: unseen(job(*values)))
    monkeypatch.setattr(spread.os, "utime", lambda path: None)
    assert f"it does not see {tmp_path / 'gone'} of this machine: give a folder that all nodes share" in said()


def test_pieces_that_fail(three, tmp_path, message):
    def run(recipe, count=1):
        with on_cluster(three.cluster, recipe, tmp_path) as run:
            return sorted(run(range(count)))

    assert run(pieces.square, 4) == [(number, number * number) for number in range(4)] and not list(tmp_path.iterdir())
    assert message(lambda: run(pieces.faulty)).endswith("cannot be read")
    assert "3 workers died of one piece of work" in message(lambda: run(pieces.fatal), DepthTokensError)
    with pytest.raises(UsageError, match="no node of the cluster has 2 cores, which a worker takes"), \
            on_cluster(Cluster(three.cluster.address, 2), pieces.square, tmp_path):  # fmt: skip
        pass
    for wrong in ({"cpus": 0}, {"cpus": float("nan")}, {"gpus": -1}):
        with pytest.raises(UsageError, match="a worker needs"):
            Cluster("auto", **wrong)


STOPPED = """
import signal, sys
from pathlib import Path
import pieces
from depthtokens.cli import _terminate
from depthtokens.spread import Cluster, on_cluster
signal.signal(signal.SIGTERM, _terminate)
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell ignores it
with on_cluster(Cluster(sys.argv[1]), pieces.Endless(sys.argv[2]), Path(sys.argv[2])) as run:
    for _ in run([1, 2]):
        pass
"""


def processes(word):
    """Processes that name it in their command line or environment."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (path / "cmdline").read_bytes() + (path / "environ").read_bytes():
                found.add(path.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("address", ["local", None])
def test_stopped_leaves_no_process(nodes, address, tmp_path):
    """Neither workers nor a cluster that was started for them: Ctrl-C goes to all processes of a terminal's group, SIGTERM to one."""
    mark = f"mark{tmp_path.name}{os.getpid()}"
    short = tempfile.mkdtemp(prefix="r")  # sockets are opened in there
    environment = {**os.environ, "TMPDIR": short, "MARK": mark}
    command = [sys.executable, "-c", STOPPED, address or nodes.cluster.address, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not (at_work := list(tmp_path.glob("at-work-*"))) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert at_work, process.stderr.read()
        assert len(processes(mark)) > 5 or not address
        os.killpg(process.pid, signal.SIGINT) if address else process.terminate()
        process.wait(30)
    workers = [path.name.removeprefix("at-work-") for path in at_work]
    while (left := processes(mark) | {name for name in workers if Path("/proc", name).exists()}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
