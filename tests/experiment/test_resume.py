"""A run that is taken up again is the same run: other data, scales and epochs are noticed, and no two runs share a folder."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from depthtokens import DataError, Experiment, TrainingError, UsageError, WeightsError, train
from depthtokens import files as files_module
from depthtokens.depth.checkpoint import read, write
from depthtokens.experiment.learn import Learner, epoch_order, make_optimizer, peak_share
from depthtokens.experiment.source import FLIPS, ORDER, drawn
from depthtokens.experiment.train import CONFIG, LOG, STATE
from depthtokens.files import LOCK


@pytest.fixture
def folder(tmp_path):
    """Four small pairs, 1000 units per metre."""
    rng = np.random.default_rng(0)
    for kind in ("images", "depth"):
        (tmp_path / "data" / "train" / kind).mkdir(parents=True)
    for i in range(4):
        write_pair(tmp_path / "data", i, rng.integers(0, 255, (64, 96, 3), dtype=np.uint8), 2000 + 100 * i)
    return tmp_path / "data"


def write_pair(root, i, rgb, millimetres):
    Image.fromarray(rgb).save(root / "train" / "images" / f"{i}.png")
    Image.fromarray(np.full((64, 96), millimetres, np.uint16)).save(root / "train" / "depth" / f"{i}.png")


def experiment(folder, tiny_file, **changes):
    settings = {"depth_scale": 1000.0, "epochs": 2, "batch_size": 2, "views": 1, "workers": 0, "cache": False, "lr": 1e-2}
    return Experiment(**{
        "data": f"folder:{folder}", "clip": str(tiny_file), "out": str(folder.parent / "run"), **settings, **changes,
    })  # fmt: skip


def test_an_edited_image_is_noticed(folder, tiny_file):
    train(experiment(folder, tiny_file))
    write_pair(folder, 1, np.full((64, 96, 3), 9, np.uint8), 2000)
    with pytest.raises(UsageError, match="has changed since it began"):
        train(experiment(folder, tiny_file), resume=True)


def test_more_or_fewer_images_are_noticed(folder, tiny_file):
    train(experiment(folder, tiny_file))
    write_pair(folder, 4, np.full((64, 96, 3), 9, np.uint8), 2000)
    with pytest.raises(UsageError, match="on 5 images: it began with 4"):
        train(experiment(folder, tiny_file), resume=True)


def test_another_scale_is_refused_by_name(folder, tiny_file):
    train(experiment(folder, tiny_file))
    with pytest.raises(UsageError, match="depth_scale changed"):
        train(experiment(folder, tiny_file, depth_scale=500.0), resume=True)
    (folder / "depthtokens.json").write_text(json.dumps({"depth_range": [0.5, 9.0]}))  # not a setting of the run, but of its data
    with pytest.raises(UsageError, match="has changed since it began"):
        train(experiment(folder, tiny_file), resume=True)


def test_an_objective_is_a_setting_of_a_run(folder, tiny_file):
    """Which files say where it is not the released one, as those of earlier versions do not."""
    run = train(experiment(folder, tiny_file))
    assert "objective" not in run.model.provenance.experiment and train(experiment(folder, tiny_file), resume=True).steps == 4
    with pytest.raises(UsageError, match="objective changed"):
        train(experiment(folder, tiny_file, objective="silog+ce"), resume=True)


def test_a_condition_is_a_setting_of_a_run(folder, tiny_file):
    train(experiment(folder, tiny_file, condition="gain"))
    with pytest.raises(UsageError, match="other settings: condition changed"):
        train(experiment(folder, tiny_file), resume=True)


def test_epochs_may_grow_but_not_shrink(folder, tiny_file):
    first = train(experiment(folder, tiny_file))
    with pytest.raises(UsageError, match="fewer epochs: it was begun for 2"):
        train(experiment(folder, tiny_file, epochs=1), resume=True)
    said = []
    longer = train(experiment(folder, tiny_file, epochs=4), resume=True, notify=said.append)
    assert longer.steps == 8 and len(longer.epoch_losses) == 4 and longer.epoch_losses[:2] == first.epoch_losses
    assert any("schedule of 4 epochs instead of 2" in line for line in said)
    assert longer.model.provenance.training["grown"] == [{"step": 4, "epochs": 2}]
    rates = [json.loads(line)["lr"] for line in (folder.parent / "run" / LOG).read_text().splitlines()]
    schedule = make_optimizer(longer.model, 8, 1e-2)
    expected = []
    for step in range(8):
        expected.append(schedule[1].get_last_lr()[0])
        schedule[0].step()
        if step < 7:
            schedule[1].step()
    assert rates[4:] == pytest.approx(expected[4:])  # from where it stands, the longer schedule's


def test_infinite_numbers_survive(folder, tiny_file, tmp_path):
    first = train(experiment(folder, tiny_file, clip_norm=float("inf")))
    path = folder.parent / "run" / "experiment.toml"
    assert "clip_norm = inf" in path.read_text()
    assert Experiment.from_toml(path).clip_norm == float("inf")
    again = train(experiment(folder, tiny_file, clip_norm=float("inf")), resume=True)
    assert torch.equal(*(load_file(result.tokens)["tokens.depth"] for result in (first, again)))
    with pytest.raises(UsageError, match="lr must be a finite number"):
        experiment(folder, tiny_file, lr=float("inf"))


HOLD = """
import sys
from pathlib import Path
from depthtokens.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_runs_into_one_folder(folder, tiny_file, monkeypatch):
    train(experiment(folder, tiny_file))
    monkeypatch.setattr(files_module, "PATIENCE", 0.1)
    command = [sys.executable, "-c", HOLD, str(folder.parent / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="another process is writing"):
            train(experiment(folder, tiny_file), resume=True)
        other.stdin.close()
    train(experiment(folder, tiny_file), resume=True)  # the lock went with its holder


def test_a_run_that_is_refused_leaves_the_other_alone(folder, tiny_file):
    """Also before that one's first checkpoint."""
    files = []

    def second(label, done, total, note=""):
        if label == "training" and done == 1:
            with pytest.raises(UsageError, match="exists"):
                train(experiment(folder, tiny_file))
            files.extend(path.name for path in (folder.parent / "run").iterdir())

    train(experiment(folder, tiny_file), progress=second)
    assert {LOG, CONFIG} <= set(files)


def test_a_run_killed_while_it_writes_its_settings_begins_anew(folder, tiny_file):
    run = experiment(folder, tiny_file)
    out = folder.parent / "run"
    out.mkdir()
    (out / LOCK).touch()
    (out / ".experiment.toml.123.partial").write_text("data =")  # as an earlier version would leave it
    train(run)
    with pytest.raises(UsageError, match="exists"):
        train(run)


def test_a_failed_start_leaves_nothing(folder, tiny_file):
    with pytest.raises(TrainingError, match="nothing to learn"):
        train(experiment(folder, tiny_file, depth="depth-7"))
    assert not (folder.parent / "run").exists()
    (folder.parent / "run").mkdir()
    (folder.parent / "run" / LOCK).touch()  # of a run that was killed before it wrote anything
    train(experiment(folder, tiny_file))
    assert (folder.parent / "run" / STATE).is_file()


@pytest.mark.parametrize(("at", "stays"), [(0, False), (3, True)])
def test_what_stays_is_said_only_where_something_does(folder, tiny_file, monkeypatch, at, stays):
    clip = Learner.clip

    def broken(learner):
        if learner.done == at:
            raise TrainingError("the loss is not a number")
        return clip(learner)

    monkeypatch.setattr(Learner, "clip", broken)
    with pytest.raises(TrainingError) as caught:
        train(experiment(folder, tiny_file))
    assert ("stays" in str(caught.value)) == stays == (folder.parent / "run" / STATE).is_file()


def test_a_schedule_too_short_to_learn_is_said(folder, tiny_file):
    said = []
    train(experiment(folder, tiny_file, epochs=1, batch_size=4), notify=said.append)
    assert any("a schedule of 1 steps reaches" in line for line in said)
    assert peak_share(1) < 0.5 < peak_share(10) and peak_share(1000) == 1


def test_batchnorm_of_one_value_is_one_line(folder, tiny_file):
    with pytest.raises(TrainingError, match="one value per channel"):
        train(experiment(folder, tiny_file, views=0, crop=(32, 32), batch_size=1, batchnorm="adapt"))


def test_seeds_share_nothing():
    orders = {seed: [tuple(epoch_order(50, seed, epoch)) for epoch in range(25)] for seed in range(3)}
    assert len({order for some in orders.values() for order in some}) == 75  # seeds 0 and 1 had 24 of 25 in common
    flips = {tuple((drawn(seed, epoch, FLIPS).random(50) < 0.5).tolist()) for seed in range(3) for epoch in range(25)}
    assert len(flips) == 75
    assert drawn(0, 1, ORDER).random() != drawn(1, 0, ORDER).random() != drawn(0, 1, FLIPS).random()
    assert epoch_order(50, 3, 4) == epoch_order(50, 3, 4) and sorted(epoch_order(50, 3, 4)) == list(range(50))


def test_depths_out_of_proportion_are_not_trained_on(folder, tiny_file):
    with pytest.raises(DataError, match="out of proportion.*--force trains on it all the same"):
        train(experiment(folder, tiny_file, depth_scale=1.0))
    assert not (folder.parent / "run").exists()
    said = []
    with pytest.raises(TrainingError, match="no image of a whole epoch has valid depth"):  # it goes on, to nothing
        train(experiment(folder, tiny_file, depth_scale=1.0), notify=said.append, force=True)
    assert any("out of proportion" in line and "1000" in line for line in said)


def test_a_checkpoint_that_is_not_this_run_s(folder, tiny_file):
    """Whatever is in it: one line, and nothing of it in the model's files."""
    run = experiment(folder, tiny_file)
    train(run)
    state = folder.parent / "run" / STATE
    tensors, values = read(state)
    for name, value in (("optimizer.tokens.more.step", torch.zeros(())), ("optimizer.tokens.depth.exp_avg", torch.zeros(3)),
                        ("tokens.more", torch.zeros(3)), ("tokens.depth", torch.zeros(3))):  # fmt: skip
        write(state, {**tensors, name: value}, values)
        with pytest.raises(WeightsError, match=f"'{name}'"):
            train(run, resume=True)
    for wrong in ({"experiment": 3}, {"groups": []}, {"groups": None}, {"scheduler": 3}, {"losses": 3}, {"facts": [1]}, {"step": "x"},
                  {"grown": [3]}, {"skipped": None}, {"experiment": {}}, {"losses": [[1]]}):  # fmt: skip
        write(state, tensors, {**values, **wrong})
        with pytest.raises((WeightsError, UsageError)) as caught:
            train(run, resume=True)
        assert "\n" not in str(caught.value)
    content = bytearray(state.read_bytes())
    content[-3] ^= 4
    state.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        train(run, resume=True)


def test_what_stays_on_this_machine_is_whole(folder, tiny_file):
    out = folder.parent / "run"
    train(experiment(folder, tiny_file))
    assert str(folder) in (out / "experiment.toml").read_text()
    assert read(out / STATE)[1]["experiment"]["data"] == f"folder:{folder}"
