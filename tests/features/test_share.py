"""Shards that several processes make at once are those of one process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from depthtokens import UsageError
from depthtokens.features.plan import plan
from depthtokens.features.share import finish, write_share
from depthtokens.features.store import FeatureStore
from depthtokens.features.views import Views
from depthtokens.features.write import write
from stores import message, opened, small_shards


@pytest.fixture
def planned(tiny_clip, folder):
    return small_shards(plan(tiny_clip, opened(folder), Views(), ["value"]))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_shares_are_joined(planned, tmp_path):
    """In any order, some twice, the last one while another process begins; 7 images are 4 shards."""
    out, seen = tmp_path / "s", []
    assert write_share(planned, out, (3, 3), workers=0, progress=lambda label, *done: seen.append(done)) == (1, 4)
    assert seen == [(1, 2), (2, 2)]
    assert "lacks 3 of 4 shards (0, 1, 3): run the --shard I/N that make them" in message(lambda: finish(planned, out))
    assert write_share(planned, out, (1, 3), workers=0) == (2, 4)
    kept = content(out)
    assert write_share(planned, out, (1, 3), workers=0) == (2, 4) and content(out) == kept
    write_share(planned, out, (2, 3), workers=0)
    assert "is unfinished" in message(lambda: FeatureStore(out))
    finish(planned, out).check()
    write(planned, tmp_path / "one", workers=0)
    assert content(out) == content(tmp_path / "one")
    assert write_share(planned, out, (9, 9), workers=0) == (0, 4) and len(finish(planned, out)) == 7


def test_several_at_once(planned, tmp_path):
    """Each share in a thread, all of which begin together; what one is writing, another does not take for left behind."""
    begin = Barrier(4)

    def share(number):
        begin.wait()
        return write_share(planned, tmp_path / "s", (number, 4), workers=0, batch_size=1)

    with ThreadPoolExecutor(4) as crew:
        assert list(crew.map(share, range(1, 5))) == [(1, 4)] * 4
    finish(planned, tmp_path / "s")
    write(planned, tmp_path / "one", workers=0, batch_size=1)
    assert content(tmp_path / "s") == content(tmp_path / "one")


@pytest.mark.parametrize("share", [(0, 4), (5, 4), (1, 0)])
def test_shares_that_are_none(planned, tmp_path, share):
    with pytest.raises(UsageError, match=r"write 1/4( to 4/4)?$"):
        write_share(planned, tmp_path / "s", share)
    assert not (tmp_path / "s").exists()
