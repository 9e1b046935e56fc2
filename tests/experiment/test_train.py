"""Training runs: resuming bit for bit, interruption, training from stores, and what stops a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from depthtokens import DataError, DepthTokens, Experiment, TrainingError, UsageError, evaluate, train
from depthtokens.data import open_dataset
from depthtokens.depth.checkpoint import read
from depthtokens.experiment.train import LOG, STATE, TOKENS
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write


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


@pytest.mark.parametrize(
    "changes", [{}, {"template": "1o1d", "batchnorm": "adapt", "scale": "learned", "bins": "log", "condition": "shift"}]
)
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
    resumed = train(replace(part, dense="layer4"), resume=True)  # what the run took where none was named
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
    with pytest.raises(TrainingError, match="stopped at step 5, the checkpoint in .* stays: .*not a number"):
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
    assert not list((tmp_path / "run").glob(".*.partial"))  # nothing half written
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


def test_fixed_views_are_stored_by_themselves_and_train_alike(nyu_tree, tiny_file, tmp_path):
    settings = {"data": f"nyu:{nyu_tree}", "clip": str(tiny_file), "epochs": 2, "batch_size": 3, "workers": 0, "crop": (64, 96), "views": 2,
                "dense": "value", "scale": "50"}  # fmt: skip
    told = []
    stored = train(Experiment(**settings, out=str(tmp_path / "stored")), notify=told.append)
    again = train(Experiment(**settings, out=str(tmp_path / "again")), notify=told.append)
    images = train(Experiment(**settings, cache=False, out=str(tmp_path / "images")), notify=told.append)
    (stored_line,) = [line for line in told if line.startswith("storing patch features")]
    assert "6 images" in stored_line and "--no-cache" in stored_line
    assert again.epoch_losses == stored.epoch_losses == pytest.approx(images.epoch_losses, rel=1e-3)


def source_store(path):
    from depthtokens.features.store import FeatureStore

    return FeatureStore(path)


def test_a_store_in_the_place_of_data(nyu_tree, tiny_file, tiny_clip, tmp_path):
    data = open_dataset(f"nyu:{nyu_tree}", "train")
    write(plan(tiny_clip, data, Views(), ["value"]), tmp_path / "store", workers=0)
    settings = {"data": f"store:{tmp_path / 'store'}", "clip": str(tiny_file), "epochs": 1, "batch_size": 3, "scale": "50"}
    result = train(Experiment(**settings, dense="value", out=str(tmp_path / "run")))
    assert result.model.settings.predict_side == 480 and result.model.depth_range == (0.001, 10.0)
    with pytest.raises(DataError, match="holds dense value, not layer4"):
        train(Experiment(**settings, out=str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match="adapt"):
        train(Experiment(**settings, dense="value", batchnorm="adapt", out=str(tmp_path / "other")))
    with pytest.raises(DataError, match="normalised"):
        train(Experiment(**settings, dense="value", normalisation="clip", out=str(tmp_path / "other")))
    with pytest.raises(DataError, match="no mirror images"):
        evaluate(result.model, source_store(tmp_path / "store"))
    saved = DepthTokens.load(result.tokens).provenance.training["store"]
    assert saved["split"] == "train" and saved["views"]["count"] == 1 and saved["data_fingerprint"] == data.fingerprint()
    for changes, message in (({"views": 4}, "holds 1 views"), ({"crop": (64, 96), "views": 0}, "leave out --crop")):
        with pytest.raises(UsageError, match=message):
            train(Experiment(**settings, **changes, dense="value", out=str(tmp_path / "other")))


def test_stores_that_are_not_trained_on(nyu_tree, tiny_file, tiny_clip, tmp_path):
    shutil.copytree(nyu_tree, tmp_path / "data")
    for split in ("train", "test"):
        write(plan(tiny_clip, open_dataset(f"nyu:{tmp_path / 'data'}", split), Views(), ["layer4"]), tmp_path / split, workers=0)
    settings = {"clip": str(tiny_file), "epochs": 1, "batch_size": 3, "out": str(tmp_path / "run")}
    with pytest.raises(UsageError, match="holds a test split"):
        train(Experiment(data=f"store:{tmp_path / 'test'}", **settings))
    depth = next((tmp_path / "data" / "sync").rglob("sync_depth_00001.png"))
    depth.write_bytes(next((tmp_path / "data" / "sync").rglob("sync_depth_00002.png")).read_bytes())
    with pytest.raises(DataError, match="has changed since"):
        train(Experiment(data=f"store:{tmp_path / 'train'}", **settings))
    sizes = tmp_path / "sizes" / "train"
    for kind in ("images", "depth"):
        (sizes / kind).mkdir(parents=True)
    for i, side in enumerate((64, 96)):
        Image.fromarray(np.full((side, 96, 3), 99, np.uint8)).save(sizes / "images" / f"{i}.png")
        Image.fromarray(np.full((side, 96), 2000, np.uint16)).save(sizes / "depth" / f"{i}.png")
    with pytest.raises(UsageError, match=r"differ in size \(64x96, 96x96\): give --views K --crop"):
        train(Experiment(data=f"folder:{tmp_path / 'sizes'}", depth_scale=1000, views=1, **settings))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def running(nyu_tree, tiny_file, tmp_path):
    """A run with workers, in a process group of its own as terminals and schedulers make one, that has taken a few of very many steps."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "depthtokens", "train", "--data", f"nyu:{nyu_tree}", "--clip", str(tiny_file), "--out", str(out),
               "--epochs", "500", "--batch-size", "2", "--crop", "64", "96", "--workers", "2"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not ((out / LOG).is_file() and (out / LOG).read_text().count("\n") >= 5) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield process
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_to_a_job(running, tmp_path, sent, code):
    out = tmp_path / "run"
    os.killpg(running.pid, sent)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == code, errors
    assert f"--resume {out}" in output and "Traceback" not in errors
    assert (out / STATE).is_file() and DepthTokens.load(Path(out / TOKENS)).provenance.training["steps"] >= 5
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)  # no worker is left


@pytest.mark.slow
def test_workers_go_with_a_killed_run(running, tmp_path):
    running.kill()
    running.wait()
    deadline = time.monotonic() + 20
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(running.pid, 0)
            time.sleep(0.1)


def test_the_second_signal_acts_at_once(nyu_tree, tiny_file, tmp_path):
    def twice(label, done, total, note=""):
        if label == "training" and done == 2:
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "which ends the process"
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(experiment(nyu_tree, tiny_file, tmp_path / "run"), progress=twice)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_is_saved_by_the_clock(nyu_tree, tiny_file, tmp_path):
    """A run that is killed within an epoch goes on from what the clock had it save."""
    whole = train(experiment(nyu_tree, tiny_file, tmp_path / "whole"))
    part = experiment(nyu_tree, tiny_file, tmp_path / "part", save_minutes=1e-9)
    with pytest.raises(Stop):
        train(part, progress=fail_at(3))
    assert read(tmp_path / "part" / STATE)[1]["step"] == 2, "saved after the step that was told last"
    resumed = train(replace(part, save_minutes=10.0), resume=True)
    assert torch.equal(load_file(whole.tokens)["tokens.depth"], load_file(resumed.tokens)["tokens.depth"])
