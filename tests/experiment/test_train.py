"""Training runs: recipe, resuming bit for bit, interruption, and what stops a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from depthtokens import DataError, DepthTokens, Experiment, TrainingError, UsageError, evaluate, make_optimizer, train
from depthtokens.data import open_dataset
from depthtokens.experiment.controls import learn_controls
from depthtokens.experiment.evaluate import head_of, score_heads
from depthtokens.experiment.source import Reading, open_source
from depthtokens.experiment.train import LOG, STATE, TOKENS


def experiment(nyu_tree, tiny_file, out, **changes):
    settings = {"epochs": 2, "batch_size": 2, "lr": 1e-2, "crop": (64, 96), "workers": 0, **changes}
    return Experiment(data=f"nyu:{nyu_tree}", clip=str(tiny_file), out=str(out), **settings)


class Stop(Exception):
    pass


def interrupt_at(step):
    def progress(label, done, total, note=""):
        if label == "training" and done == step:
            signal.raise_signal(signal.SIGINT)

    return progress


def fail_at(step):
    def progress(label, done, total, note=""):
        if label == "training" and done == step:
            raise Stop

    return progress


def test_optimizer_is_the_released_recipe(tiny_clip):
    optimizer, scheduler = make_optimizer(DepthTokens(tiny_clip), 100)
    group = optimizer.param_groups[0]
    assert group["weight_decay"] == 0.1 and group["lr"] == pytest.approx(3.57e-4 / 25) and group["betas"][0] == pytest.approx(0.95)
    rates = []
    for _ in range(99):
        optimizer.step()
        scheduler.step()
        rates.append(group["lr"])
    assert max(rates) == pytest.approx(3.57e-4, rel=1e-3) and rates[-1] == pytest.approx(3.57e-4 / 25 / 100, rel=1e-6)


def test_a_learned_scale_goes_faster_and_does_not_decay(tiny_clip):
    model = DepthTokens(tiny_clip, depth="depth-7", scale="learned")
    optimizer, scheduler = make_optimizer(model, 100)
    before = model.log_scale.item()
    for _ in range(99):
        model.log_scale.grad = torch.zeros(())
        optimizer.step()
        scheduler.step()
    assert model.log_scale.item() == before  # no pull where the loss has none
    optimizer, scheduler = make_optimizer(model, 100)
    for _ in range(99):
        model.log_scale.grad = torch.ones(())
        optimizer.step()
        scheduler.step()
    assert model.log_scale.item() < before - 1  # can be an e-th within a hundred steps
    tokens, scale = make_optimizer(DepthTokens(tiny_clip, scale="learned"), 100)[0].param_groups
    assert (tokens["weight_decay"], scale["weight_decay"]) == (0.1, 0) and scale["lr"] == pytest.approx(100 * tokens["lr"])


@pytest.mark.parametrize("changes", [{}, {"template": "1o1d", "batchnorm": "adapt", "scale": "learned", "bins": "log"}])
@pytest.mark.parametrize("at", [3, 4])  # the end of an epoch (checkpoint), and in the middle of the next (Ctrl-C)
def test_resumed_equals_uninterrupted_bit_for_bit(nyu_tree, tiny_file, tmp_path, changes, at):
    whole = train(experiment(nyu_tree, tiny_file, tmp_path / "whole", **changes))
    part = experiment(nyu_tree, tiny_file, tmp_path / "part", **changes)
    stopped = train(part, progress=interrupt_at(at))
    assert stopped.interrupted and not whole.interrupted
    resumed = train(part, resume=True)
    assert resumed.epoch_losses == whole.epoch_losses
    one, two = load_file(whole.tokens), load_file(resumed.tokens)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    logs = [[json.loads(line) for line in (tmp_path / name / LOG).read_text().splitlines()] for name in ("whole", "part")]
    assert [(r["step"], r["loss"], r["lr"]) for r in logs[0]] == [(r["step"], r["loss"], r["lr"]) for r in logs[1]]


def test_workers_do_not_change_the_tokens(nyu_tree, tiny_file, tmp_path):
    results = [train(experiment(nyu_tree, tiny_file, tmp_path / str(n), workers=n, epochs=1)) for n in (0, 2)]
    assert torch.equal(*(load_file(result.tokens)["tokens.depth"] for result in results))


def test_a_run_killed_between_checkpoints_redoes_the_steps(nyu_tree, tiny_file, tmp_path):
    whole = train(experiment(nyu_tree, tiny_file, tmp_path / "whole"))
    part = experiment(nyu_tree, tiny_file, tmp_path / "part")
    with pytest.raises(Stop):  # before the first checkpoint
        train(part, progress=fail_at(2))
    with pytest.raises(Stop):  # after the checkpoint of epoch 1 and two more steps; nothing is saved on the way out
        train(part, resume=True, progress=fail_at(5))
    resumed = train(part, resume=True)
    assert torch.equal(load_file(whole.tokens)["tokens.depth"], load_file(resumed.tokens)["tokens.depth"])
    assert len((tmp_path / "part" / LOG).read_text().splitlines()) == 6


def test_learning_lowers_the_error(nyu_tree, tiny_file, tmp_path):
    # With the released scale a random CLIP saturates into one bin within a few steps; a mild one lets it learn.
    run = experiment(
        nyu_tree, tiny_file, tmp_path / "run", epochs=15, lr=0.03, batch_size=6, scale="50", dense="value", views=1, cache=False, crop=None
    )
    data = open_dataset(f"nyu:{nyu_tree}", "train")
    model = DepthTokens.load(train(run).tokens)
    untrained = DepthTokens.of(model.clip, run.model_settings(data.depth_range))
    before, after = (evaluate(m, data, workers=0).image_wise["rmse_log"] for m in (untrained, model))
    assert after < 0.75 * before
    assert model.provenance.training["steps"] == 15 and model.provenance.protocol == "auty2023"
    assert model.settings.predict_side == 480


def test_bfloat16_and_tensorboard(nyu_tree, tiny_file, tmp_path):
    pytest.importorskip("tensorboard")
    result = train(experiment(nyu_tree, tiny_file, tmp_path / "run", precision="bfloat16", tensorboard=True, epochs=1))
    assert np.isfinite(result.epoch_losses).all()
    assert list((tmp_path / "run").glob("events.out.tfevents*"))


def test_refusals(nyu_tree, tiny_file, tmp_path, monkeypatch):
    run = experiment(nyu_tree, tiny_file, tmp_path / "run", epochs=1)
    with pytest.raises(UsageError, match="nothing to resume"):
        train(run, resume=True)
    train(run)
    with pytest.raises(UsageError, match="exists: choose another --out"):
        train(run)
    with pytest.raises(UsageError, match="other settings: lr changed"):
        train(experiment(nyu_tree, tiny_file, tmp_path / "run", epochs=1, lr=1e-3), resume=True)
    with pytest.raises(TrainingError, match="nothing to learn"):
        train(experiment(nyu_tree, tiny_file, tmp_path / "words", depth="depth-7"))
    with pytest.raises(DataError, match="smaller than the"):
        train(experiment(nyu_tree, tiny_file, tmp_path / "words", crop=(600, 600)))
    assert not (tmp_path / "words").exists()  # nothing in the way of the next try
    for changes, message in (({"device": "cuda"}, "no cuda device"), ({"device": "cpu:x"}, "is no device"),
                             ({"precision": "float8"}, "did you mean 'float"),
                             ({"protocol": "auty"}, "did you mean 'auty2023'")):  # fmt: skip
        if not (changes.get("device") == "cuda" and torch.cuda.is_available()):
            with pytest.raises(UsageError, match=message):
                train(experiment(nyu_tree, tiny_file, tmp_path / "x", **changes))
    with pytest.raises(UsageError, match="epochs must be at least 1"):
        experiment(nyu_tree, tiny_file, tmp_path / "x", epochs=0)


def test_nan_loss_keeps_the_last_good_checkpoint(nyu_tree, tiny_file, tmp_path, monkeypatch):
    import depthtokens.experiment.learn as module

    run = experiment(nyu_tree, tiny_file, tmp_path / "run")
    calls = []

    def broken(depth, target):
        calls.append(1)
        loss = silog(depth, target)
        return loss * float("nan") if len(calls) == 5 else loss

    silog = module.silog
    monkeypatch.setattr(module, "silog", broken)
    with pytest.raises(TrainingError, match="stopped at step 5, the last good checkpoint stays.*not a number"):
        train(run)
    monkeypatch.setattr(module, "silog", silog)
    saved = DepthTokens.load(tmp_path / "run" / TOKENS)
    assert saved.provenance.training["steps"] == 3 and torch.isfinite(saved.tokens["depth"]).all()
    assert train(run, resume=True).epoch_losses[-1] > 0


def test_disk_full_leaves_the_last_checkpoint_whole(nyu_tree, tiny_file, tmp_path, monkeypatch):
    from depthtokens import DepthTokensError

    run = experiment(nyu_tree, tiny_file, tmp_path / "run")
    done = []

    def full(descriptor):
        done.append(1)
        if len(done) > 3:  # configuration, tokens and state of epoch 1 fit
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DepthTokensError, match="cannot write.*No space left"):
        train(run)
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob(".*"))  # nothing half written
    whole = train(experiment(nyu_tree, tiny_file, tmp_path / "whole"))
    assert torch.equal(load_file(train(run, resume=True).tokens)["tokens.depth"], load_file(whole.tokens)["tokens.depth"])


def test_maps_without_depth_are_skipped_and_counted(tiny_file, tmp_path):
    root = tmp_path / "sync" / "room"
    root.mkdir(parents=True)
    for i in range(4):
        Image.fromarray(np.full((480, 640, 3), 60 * i, np.uint8)).save(root / f"rgb_{i}.png")
        Image.fromarray(np.full((480, 640), 0 if i < 2 else 2000, np.uint16)).save(root / f"sync_depth_{i}.png")
    result = train(experiment(tmp_path, tiny_file, tmp_path / "run", batch_size=1, epochs=1))
    assert result.skipped == 2 and np.isfinite(result.epoch_losses).all()
    assert [json.loads(line)["loss"] is None for line in (tmp_path / "run" / LOG).read_text().splitlines()].count(True) == 2


def test_no_depth_at_all_is_an_error(tiny_file, tmp_path):
    root = tmp_path / "sync" / "room"
    root.mkdir(parents=True)
    Image.fromarray(np.zeros((480, 640, 3), np.uint8)).save(root / "rgb_0.png")
    Image.fromarray(np.zeros((480, 640), np.uint16)).save(root / "sync_depth_0.png")
    with pytest.raises(TrainingError, match="no image of a whole epoch has valid depth"):
        train(experiment(tmp_path, tiny_file, tmp_path / "run"))


def test_resume_survives_a_cut_log_line(nyu_tree, tiny_file, tmp_path):
    run = experiment(nyu_tree, tiny_file, tmp_path / "run")
    train(run, progress=interrupt_at(4))
    with (tmp_path / "run" / LOG).open("a") as log:
        log.write('{"epoch": 2, "st')
    train(run, resume=True)
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / LOG).read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_controls(nyu_tree, tiny_clip):
    training, test = (open_dataset(f"nyu:{nyu_tree}", split) for split in ("train", "test"))
    controls = learn_controls(training, (0.001, 10.0), workers=0)
    depths = np.stack([training.read(i)[1] for i in range(len(training))])
    assert controls.constant == pytest.approx(np.exp(np.log(depths).mean()), rel=1e-5)
    assert controls.mean_map[0, 0].numpy() == pytest.approx(np.exp(np.log(depths).mean(axis=0)), rel=1e-5)
    model = DepthTokens(tiny_clip)
    source = open_source(model, test, None, Reading(workers=0))
    rows = score_heads({"tokens": head_of(model)}, source, "depthclip", controls)
    assert list(rows) == ["tokens", "constant", "mean map"]
    # The map is cropped as the image is, not squeezed.
    target = test.read(0)[1][56:470, 60:600]
    predicted = np.exp(np.log(depths).mean(axis=0))[56:470, 60:600]
    assert rows["mean map"].per_image[0]["abs_rel"] == pytest.approx(np.mean(np.abs(predicted - target) / target), rel=1e-4)


def test_experiment_to_toml_and_back(tmp_path):
    first = Experiment(
        data='nyu:a "quoted" folder\\x \U0001f4f7\x7f', crop=(64, 96), depth_range=(0.5, 10.0), weights=None, depth="near|far"
    )
    (tmp_path / "e.toml").write_text(first.to_toml())
    second = Experiment.from_toml(tmp_path / "e.toml")
    assert second == first and second.crop == (64, 96) and second.weights == "random"


@pytest.mark.parametrize(("text", "message"), [
    ('data = "nyu:x"\nepoch = 3', "did you mean 'epochs'"), ('data = "nyu:x"\nepochs = "3"', "should be int"),
    ('data = "nyu:x"\ncrop = [64]', "two numbers"), ('data = "nyu:x"\ncrop = [64, "x"]', "two numbers"),
    ('data = "nyu:x"\nweight_decay = nan', "not be negative"), ('data = "nyu:x"\nseed = -1', "seed must be between"),
    ("epochs = 3", "does not say `data`"), ("data = nyu", "not valid TOML"), ('data = "nyu:x"\nepochs = 0', "at least 1"),
])  # fmt: skip
def test_bad_toml(tmp_path, text, message):
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        Experiment.from_toml(tmp_path / "e.toml")
    assert message in str(caught.value)


@pytest.mark.slow
def test_ctrl_c_in_a_real_process(nyu_tree, tiny_file, tmp_path):
    """SIGINT to the process group, as a terminal sends it, with data workers running."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "depthtokens", "train", "--data", f"nyu:{nyu_tree}", "--clip", str(tiny_file), "--out", str(out),
               "--epochs", "500", "--batch-size", "2", "--crop", "64", "96", "--workers", "2"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not ((out / LOG).is_file() and (out / LOG).read_text().count("\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert f"--resume {out}" in output and "Traceback" not in errors
    assert (out / STATE).is_file() and DepthTokens.load(Path(out / TOKENS)).provenance.training["steps"] >= 5
