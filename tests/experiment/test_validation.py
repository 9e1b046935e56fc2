"""Scores while training: in the log and nowhere else."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from depthtokens import DataError, DepthTokens, Experiment, evaluate, train
from depthtokens.data import open_dataset
from depthtokens.experiment.train import LOG
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write


def experiment(nyu_tree, tiny_file, out, **changes):
    settings = {"epochs": 3, "batch_size": 3, "lr": 0.05, "scale": "50", "crop": (64, 96), "workers": 0, **changes}
    return Experiment(data=f"nyu:{nyu_tree}", clip=str(tiny_file), out=str(out), **settings)


def log(out):
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [line for line in lines if "loss" in line], [line for line in lines if "validation" in line]


@pytest.mark.parametrize("changes", [{"dense": "value"}, {"template": "1o1d", "batchnorm": "adapt"}])
def test_tokens_are_the_same_with_and_without(nyu_tree, tiny_file, tmp_path, changes):
    """Bit for bit, also where the trunk adapts, and where a run is stopped on the way; scores are those of `evaluate`."""
    without = train(experiment(nyu_tree, tiny_file, tmp_path / "without", **changes))
    scored, said = experiment(nyu_tree, tiny_file, tmp_path / "scored", validate=2, **changes), []

    def interrupted(label, done, total, note=""):
        if label == "training" and done == 4:  # the end of epoch 2, where scores are due
            signal.raise_signal(signal.SIGINT)

    assert train(scored, progress=interrupted, notify=said.append).interrupted
    resumed = train(scored, resume=True, notify=said.append)
    one, two = load_file(without.tokens), load_file(resumed.tokens)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    steps, scores = log(tmp_path / "scored")
    assert [(r["step"], r["loss"], r["lr"]) for r in steps] == [(r["step"], r["loss"], r["lr"]) for r in log(tmp_path / "without")[0]]
    assert [(r["epoch"], r["step"]) for r in scores] == [(2, 4), (3, 6)] and not log(tmp_path / "without")[1]
    last = evaluate(DepthTokens.load(resumed.tokens), open_dataset(f"nyu:{nyu_tree}", "test"), workers=0).quoted
    assert scores[-1]["validation"] == pytest.approx(last, rel=2e-3) and scores[0]["validation"] != scores[1]["validation"]
    assert [line for line in said if f"epoch 3/3  test images: AbsRel {scores[-1]['validation']['abs_rel']:.3f}, " in line]


def test_of_a_store_the_data_it_was_made_from(nyu_tree, tiny_clip, tiny_file, tmp_path):
    pytest.importorskip("tensorboard")
    write(plan(tiny_clip, open_dataset(f"nyu:{nyu_tree}", "train"), Views(), ["layer4"]), tmp_path / "store", workers=0)
    run = experiment(nyu_tree, tiny_file, tmp_path / "run", epochs=1, crop=None, dense="layer4", validate=1, tensorboard=True)
    train(replace(run, data=f"store:{tmp_path / 'store'}"))
    assert len(log(tmp_path / "run")[1]) == 1
    (events,) = (tmp_path / "run").glob("events.out.tfevents*")
    assert b"validation/abs_rel" in events.read_bytes()


def test_data_without_a_test_split(nyu_tree, tiny_file, tmp_path):
    (tmp_path / "nyu").mkdir()
    (tmp_path / "nyu" / "sync").symlink_to(nyu_tree / "sync")
    with pytest.raises(DataError, match="test"):
        train(experiment(tmp_path / "nyu", tiny_file, tmp_path / "run", validate=1))
    assert not (tmp_path / "run").exists()
