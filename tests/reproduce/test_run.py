"""Tables side by side: plans, seeds, resuming, controls, effects, files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from depthtokens import DataError, DepthTokens, Experiment, UsageError, evaluate, files, train
from depthtokens.cli import main
from depthtokens.data import open_dataset
from depthtokens.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from depthtokens.depth.linear import LinearHead
from depthtokens.experiment import source
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write
from depthtokens.files import locked, sealed, unsealed
from depthtokens.reproduce import run as module
from depthtokens.reproduce.measured import slug
from depthtokens.reproduce.published import published_rows
from depthtokens.reproduce.rows import BASE, BEYOND, CONDITIONED, EFFECTS, WORDS
from depthtokens.reproduce.run import expected, reproduce
from depthtokens.reproduce.settings import Reproduction, parse_seeds, rows_for
from depthtokens.reproduce.tables import save
from helpers import killed


@pytest.fixture
def settings(nyu_tree, tiny_file, tmp_path):
    def make(**changes):
        values = {
            "data": (f"nyu:{nyu_tree}",), "clip": str(tiny_file), "seeds": "0..1", "steps": 3, "batch_size": 4, "workers": 0,
            "lr": 0.02, "out": str(tmp_path / "out"),
        }  # fmt: skip
        return Reproduction(**{**values, **changes})

    return make


def by_name(done):
    return {measured.row.name: measured.result for measured in done.rows}


def test_seeds():
    assert parse_seeds("0..4") == [0, 1, 2, 3, 4] and parse_seeds("7") == [7] and parse_seeds("3, 1") == [3, 1]
    for wrong in ("4..0", "", "a", "1,1", "-1", "0...2", "1.5", str(2**32), "0..999999999"):
        with pytest.raises(UsageError, match=r"0\.\.4"):
            parse_seeds(wrong)


def test_tables_hold_every_published_row_once():
    names = [row.name for row in rows_for("all", ["nyu", "kitti"]) if row.published]
    assert sorted(names) == sorted(row.name for row in published_rows()) and len(names) == 36
    assert {row.role for row in rows_for("3", ["kitti"])} == {"kitti"} and len(rows_for("3", ["kitti"])) == 6
    with pytest.raises(UsageError, match="needs --data nyu:ROOT; with this data, tables 3, 4, 5, 6, 7, effects, beyond, few-shot run"):
        rows_for("depthclip", ["kitti"])
    with pytest.raises(UsageError, match="unknown table"):
        rows_for("8", ["nyu"])


def test_each_effect_is_one_setting_away():
    for name, (changed, kind, asks) in EFFECTS.items():
        differs = min(len(set(asdict(changed).items()) - set(asdict(base).items())) for base in (BASE, WORDS))
        assert asks and differs + (kind != "prompt") == (0 if name in ("learned-7", "depth-7") else 2 if "256" in name else 1), name


def test_beyond_is_asked_for_by_name(settings, monkeypatch):
    """Its rows train with an objective of their own, which files say where it is not the released one."""
    rows = {row.label: row for row in rows_for("beyond", ["nyu"])}
    assert len(rows) == len(BEYOND) + len(CONDITIONED) == 14
    assert not {row.name for row in rows.values()} & {row.name for row in rows_for("all", ["nyu"])}
    released, tuned = rows["beyond/learned-7 silog"], rows["beyond/learned-7 silog+ce"]
    assert "objective" not in released.settings and tuned.to_dict()["settings"]["objective"] == "silog+ce" and not tuned.same(released)
    assert tuned.experiment("nyu:x").objective == "silog+ce" and not rows["beyond/metres-7"].learns
    made = settings(table="beyond", seeds="0", steps=2)
    monkeypatch.setattr(Reproduction, "rows", lambda self: [released, tuned, rows["beyond/metres-7"]])
    results = by_name(reproduce(made))
    assert len({tuple(results[row.name].scores["abs_rel"]) for row in (released, tuned, rows["beyond/metres-7"])}) == 3


def test_cross_domain_rows_need_both():
    assert not [row for row in rows_for("effects", ["nyu"]) if row.kind == "cross"]
    cross = [row for row in rows_for("effects", ["nyu", "kitti"]) if row.kind == "cross"]
    assert [(row.role, row.source, row.rescaled) for row in cross] == [
        ("nyu", "effects/kitti/learned-7", False), ("nyu", "effects/kitti/learned-7", True),
        ("kitti", "effects/nyu/learned-7", False), ("kitti", "effects/nyu/learned-7", True),
    ]  # fmt: skip


def test_a_table_and_its_files(settings):
    done = reproduce(settings(table="3"))
    rows = by_name(done)
    assert len(rows) == 9 and rows["control/nyu/ridge (layer4)"].parameters == 65
    learned, words, random = (rows[f"paper/t3/nyu/{name}"] for name in ("learned-7", "depth-7", "random-7"))
    assert learned.seeds == [0, 1] == random.seeds and words.seeds == [0] and learned.parameters == 7 * 64 and words.parameters == 0
    assert len(set(learned.scores["abs_rel"])) == 2 and len(set(random.scores["abs_rel"])) == 2
    # Tokens are kept, and give the figure again.
    tokens = DepthTokens.load(module.Path(done.settings.out) / "tokens" / "paper_t3_nyu_learned-7-seed1.safetensors")
    again = evaluate(tokens, open_dataset(done.settings.data[0], "test"), workers=0)
    assert again.quoted["abs_rel"] == pytest.approx(learned.scores["abs_rel"][1], abs=1e-4)
    assert [path.name for path in save(done)] == ["table.md", "table.csv", "table.html", "table.json"]


def test_finished_rows_are_not_redone(settings, monkeypatch):
    ran, fit = [], module.fit

    def counting(learners, *args, **kwargs):
        if len(ran) == 1:
            raise KeyboardInterrupt
        ran.append(learners[0].model.settings.bins)
        return fit(learners, *args, **kwargs)

    monkeypatch.setattr(module, "fit", counting)
    with pytest.raises(KeyboardInterrupt):
        reproduce(settings(table="6"))
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: ran.append("again") or fit(*args, **kwargs))
    done = reproduce(settings(table="6"))
    assert ran == ["log", "again", "again"]  # three rows, the first of which was done
    whole = reproduce(settings(table="6", out=settings().out + "-whole"))
    assert {name: row.scores for name, row in by_name(done).items()} == {name: row.scores for name, row in by_name(whole).items()}
    reproduce(settings(table="7"))  # another table joins the same folder
    (module.Path(done.settings.out) / "rows" / "paper_t6_nyu_learned-20.json").write_text("{")
    with pytest.raises(DataError, match="is damaged: delete it"):
        reproduce(settings(table="6"))


@pytest.mark.parametrize(("changes", "what"), [({"seeds": "0"}, "recipe"), ({"lr": 0.5}, "recipe"), ({"clip": "bundled"}, "clip")])
def test_half_finished_work_of_another_kind_is_refused(settings, changes, what):
    reproduce(settings(table="5"))
    with pytest.raises(UsageError, match=f"other .*{what}"):
        reproduce(settings(table="5", **changes))


def test_another_version_or_data_is_refused(settings, monkeypatch):
    done = reproduce(settings(table="5"))
    path = module.Path(done.settings.out) / module.PLAN
    plan_file = unsealed(path.read_text())
    path.write_text(json.dumps(sealed({**plan_file, "versions": {"depthtokens": "0.0.1"}})))
    with pytest.raises(UsageError, match="other versions"):
        reproduce(settings(table="5"))
    changed = {**plan_file["data"], "nyu test": {**plan_file["data"]["nyu test"], "fingerprint": "other"}}
    path.write_text(json.dumps({**plan_file, "data": changed}))  # without a seal, as older versions wrote it
    with pytest.raises(UsageError, match="other nyu test"):
        reproduce(settings(table="5"))


@pytest.mark.slow
def test_killed_while_it_writes_its_plan(settings):
    made = settings(table="5")
    words = ("--data", made.data[0], "--clip", made.clip, "--table", "5", "--seeds", made.seeds, "--steps", made.steps, "--batch-size",
             made.batch_size, "--workers", 0, "--lr", made.lr, "--out", made.out)  # fmt: skip
    killed("plan.json", "reproduce", *words)
    assert list(module.Path(made.out).iterdir())  # a lock, and half a plan
    assert len(reproduce(made).rows) == 4


def test_a_row_is_done_when_its_tokens_are_there(settings, monkeypatch):
    """Stopped between a row and its tokens, or without the tokens of a finished row: the next run ends with all of them."""
    made = settings(table="all", seeds="0")
    first = next(row for row in made.rows() if row.name == "effects/nyu/learned-7")
    rows = [first, next(row for row in made.rows() if row.same(first) and row.name != first.name)]
    monkeypatch.setattr(Reproduction, "rows", lambda self: rows)

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "atomic", killed)  # which takes over the first row's tokens for the second
        reproduce(made)
    fit = module.fit
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: pytest.fail("its twin has them"))
    done = reproduce(made)
    tokens = [module.Path(made.out) / "tokens" / f"{slug(row.name)}-seed0.safetensors" for row in rows]
    content = tokens[0].read_bytes()
    for lost in tokens:
        lost.unlink()
        assert by_name(reproduce(made)) == by_name(done) and lost.read_bytes() == content
    for lost in tokens:
        lost.unlink()
    monkeypatch.setattr(module, "fit", fit)
    again = by_name(reproduce(made))
    assert all(path.is_file() for path in tokens)
    assert {name: row.scores for name, row in again.items()} == {name: row.scores for name, row in by_name(done).items()}


def test_damaged_rows_and_plans_are_refused(settings):
    """Whichever figure of them is another one; files of older versions, which have no seal, are read."""
    made = settings(table="5", seeds="0")
    done, out = reproduce(made), module.Path(made.out)
    rng = np.random.default_rng(0)
    for path in (out / "plan.json", out / "rows" / "paper_t5_nyu_4o4d-learned-7.json"):
        whole = path.read_bytes()
        for place in rng.choice([place for place, byte in enumerate(whole) if chr(byte).isdigit()], 8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises((DataError, UsageError), match=f"{path}( is damaged|: not the figures of a row)"):
                reproduce(made)
        path.write_text(json.dumps(unsealed(whole)))
        assert by_name(reproduce(made)) == by_name(done)
    for name, value in (("seeds", ["0"]), ("parameters", True), ("minutes", None), ("names", [1, 2, 3]), ("row", {"name": "another"})):
        path.write_text(json.dumps({**unsealed(whole), name: value}))
        with pytest.raises(DataError, match="delete it, and the row is run again"):
            reproduce(made)
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="is damaged: delete it"):
        reproduce(made)


def test_one_run_at_a_time(settings, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    made = settings(table="5")
    module.Path(made.out).mkdir()
    with locked(module.Path(made.out)), pytest.raises(DataError, match="another process is writing"):
        reproduce(made)
    assert [path.name for path in module.Path(made.out).iterdir()] == [".lock"]
    assert len(reproduce(made).rows) == 4


@pytest.mark.slow
def test_effects(settings):
    done = reproduce(settings(table="effects"))
    rows = by_name(done)
    ridges = [name for name in rows if "ridge" in name]
    assert ridges == [f"control/nyu/ridge ({kind})" for kind in ("layer4", "attnpool", "value", "layer4, CLIP normalisation")]
    assert len(rows) == len(EFFECTS) + 2 + len(ridges)
    numbers = {name.rsplit("/", 1)[-1]: result.parameters for name, result in rows.items()}
    assert numbers["depth-7 learned scale"] == 1 and numbers["linear head"] == 7 * 65 and numbers["context only"] == 8 * 64
    assert numbers["path:7:256 log"] == 7 * 64 and numbers["learned-256 log"] == 256 * 64 and numbers["depth-7 adapted"] == 0
    plain, adapted = rows["effects/nyu/depth-7"], rows["effects/nyu/depth-7 adapted"]
    assert plain.scores["abs_rel"][0] not in adapted.scores["abs_rel"] and adapted.seeds == [0, 1]
    others = [result.scores["abs_rel"] for result in rows.values()]
    assert len({tuple(values) for values in others}) == len(others)  # every effect has one


def test_own_normalisation_is_no_second_row_where_it_is_imagenet_s(settings, tiny_clip, monkeypatch):
    monkeypatch.setattr(module, "load_clip", lambda name, weights: tiny_clip)
    monkeypatch.setattr(tiny_clip.visual, "image_mean", list(IMAGENET_MEAN), raising=False)
    monkeypatch.setattr(tiny_clip.visual, "image_std", list(IMAGENET_STD), raising=False)
    made = settings(table="effects")
    keep = [row for row in made.rows() if row.name.split("/")[-1] in ("depth-7", "depth-7 CLIP normalisation")]
    monkeypatch.setattr(Reproduction, "rows", lambda self: keep)
    stores = []
    cached = source.cached
    monkeypatch.setattr(source, "cached", lambda *args, **kwargs: stores.append(args) or cached(*args, **kwargs))
    rows = by_name(reproduce(made))
    assert rows["effects/nyu/depth-7"].scores == rows["effects/nyu/depth-7 CLIP normalisation"].scores and len(stores) == 1


def test_tokens_on_other_data(settings, tiny_clip, nyu_tree, monkeypatch):
    """Rooms and the same rooms said to reach 80 m stand for the two data sets."""
    monkeypatch.setattr(Reproduction, "by_role", lambda self: {"nyu": "near", "kitti": "far"})

    def opened(spec, split, **changes):
        dataset = open_dataset(f"nyu:{nyu_tree}", split, **changes)
        dataset.depth_range = (0.001, 80.0) if spec == "far" else (0.001, 10.0)
        return dataset

    monkeypatch.setattr(module, "open_dataset", opened)
    made = settings(table="effects")
    keep = [row for row in made.rows() if row.name.endswith("/learned-7") or row.kind == "cross"]
    monkeypatch.setattr(Reproduction, "rows", lambda self: keep)
    done = reproduce(made)
    rows = by_name(done)
    for role, other, own, others in (("nyu", "kitti", 10.0, 80.0), ("kitti", "nyu", 80.0, 10.0)):
        lent = DepthTokens.load(module.Path(done.settings.out) / "tokens" / f"effects_{other}_learned-7-seed0.safetensors", tiny_clip)
        for name, reach in (("metres", others), ("rescaled", own)):
            model = DepthTokens(tiny_clip, depth_range=(0.001, reach))
            model.tokens["depth"].data.copy_(lent.tokens["depth"])
            expected = evaluate(model, opened("near" if role == "nyu" else "far", "test"), workers=0).quoted["abs_rel"]
            found = rows[f"effects/{role}/from {other}, {name}"]
            assert found.scores["abs_rel"][0] == pytest.approx(expected, rel=1e-4) and found.parameters == 7 * 64
        figures = {tuple(rows[f"effects/{role}/{name}"].scores["abs_rel"]) for name in
                   ("learned-7", f"from {other}, metres", f"from {other}, rescaled")}  # fmt: skip
        assert len(figures) == 3


def test_as_released_adapts_what_learns(settings, monkeypatch):
    def killed(experiment, *_):
        module.Path(experiment.out).mkdir(parents=True)
        (module.Path(experiment.out) / "experiment.toml").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "train", killed)
        reproduce(settings(table="5", as_released=True, seeds="0", steps=None, epochs=1))
    # What was killed before its first checkpoint begins again.
    done = reproduce(settings(table="5", as_released=True, seeds="0", steps=None, epochs=1))
    saved = DepthTokens.load(module.Path(done.settings.out) / "tokens" / "paper_t5_nyu_4o4d-learned-7-seed0.safetensors")
    assert saved.settings.batchnorm == "adapt"
    frozen = reproduce(settings(table="5", seeds="0", steps=None, epochs=1, out=done.settings.out + "-frozen"))
    name = "paper/t5/nyu/4o4d-learned-7"
    assert by_name(done)[name].scores != by_name(frozen)[name].scores


@pytest.fixture
def token_row(monkeypatch):
    """The paper's seven tokens alone, and the linear head."""
    monkeypatch.setattr(Reproduction, "rows", lambda self: [r for r in rows_for("effects", ["nyu"]) if r.label in SOME])


SOME = ("effects/learned-7", "effects/linear head")


def test_new_views_in_every_epoch(settings, tiny_file, token_row, tmp_path, monkeypatch):
    """The run that `train` makes of it, tested on stored features; the linear head sees such views as well."""
    made = settings(table="effects", views=0, steps=None, epochs=2, seeds="3")
    stored = []
    cached = source.cached
    monkeypatch.setattr(source, "cached", lambda *args, **kwargs: stored.append(args[1].split) or cached(*args, **kwargs))
    reproduce(made)
    assert stored == ["test"]
    tokens, head = (module.Path(made.out) / "tokens" / f"effects_nyu_{name}-seed3.safetensors" for name in ("learned-7", "linear_head"))
    alone = train(Experiment(data=made.data[0], clip=str(tiny_file), dense="layer4", epochs=2, batch_size=4, lr=0.02, seed=3, workers=0,
                             out=str(tmp_path / "alone")))  # fmt: skip
    assert torch.equal(load_file(tokens)["tokens.depth"], load_file(alone.tokens)["tokens.depth"])
    plain = settings(table="effects", seeds="3", steps=None, epochs=2, out=made.out + "-plain")
    reproduce(plain)
    for mine in (tokens, head):
        one, other = load_file(mine), load_file(module.Path(plain.out) / "tokens" / mine.name)
        assert one.keys() == other.keys() and not all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UsageError, match="--views 0 trains whole epochs"):
        settings(views=0)


def test_what_it_will_take(settings, token_row, tmp_path, monkeypatch):
    """Bytes of the features that are not in the cache, as many as the stores then have, and minutes."""
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(tmp_path / "cache"))
    made = settings(table="effects", workers=0, batch_size=3)
    before = expected(made)
    assert 0 < before.minutes < 10 and not module.Path(made.out).exists() and str(before).startswith("features to store: ")
    reproduce(made)
    kept = sum(path.stat().st_size for path in (tmp_path / "cache" / "features").rglob("*"))
    longer = expected(replace(made, steps=300))
    assert before.bytes == pytest.approx(kept, rel=0.1) and longer.bytes == 0 and longer.minutes > 3 * before.minutes


def test_given_stores_are_used_or_refused(settings, tiny_clip, nyu_tree, tmp_path, monkeypatch):
    data = {split: open_dataset(f"nyu:{nyu_tree}", split) for split in ("train", "test")}
    for split, dataset in data.items():
        write(plan(tiny_clip, dataset, Views(mirrored=True), ["layer4"]), tmp_path / split, workers=0)
    cached = source.cached
    monkeypatch.setattr(source, "cached", lambda *a, **k: pytest.fail("a store was at hand"))
    both = (str(tmp_path / "train"), str(tmp_path / "test"))
    assert len(reproduce(settings(table="5", stores=both)).rows) == 4
    drawn = open_dataset(f"nyu:{nyu_tree}", "train", augment=True)
    write(plan(tiny_clip, drawn, Views(2), ["layer4"]), tmp_path / "drawn", workers=0)
    views = (str(tmp_path / "drawn"), str(tmp_path / "test"))
    assert len(reproduce(settings(table="5", views=2, stores=views, out=str(tmp_path / "views"))).rows) == 4
    write(plan(tiny_clip, data["test"], Views(mirrored=True), ["value"]), tmp_path / "value", workers=0)
    reading = []
    monkeypatch.setattr(source, "cached", lambda *args, **kwargs: reading.append(args[3]) or cached(*args, **kwargs))
    effects = settings(table="effects", stores=both[1:], out=str(tmp_path / "effects"))
    some = [row for row in effects.rows() if row.name.split("/")[-1] in ("depth-7", "depth-7 value")]
    with monkeypatch.context() as patched:
        patched.setattr(Reproduction, "rows", lambda self: some)
        assert len(reproduce(effects).rows) == 4 and reading == [["value"]]  # layer4 was at hand
    with pytest.raises(DataError, match="no row can use it: .* holds dense value, not layer4"):
        reproduce(settings(table="5", stores=(str(tmp_path / "value"),), out=str(tmp_path / "other")))


def test_few_images(settings, monkeypatch):
    """Rows of as many images as there are, or more, are those of all; a stopped run goes on; models see the images of their seed only."""
    shown, few = [], module.Subset

    class Watched(few):
        def training(self, epoch, order, batch_size, seed=0):
            shown.append((len(self.names), seed, len(order)))
            return super().training(epoch, order, batch_size, seed)

    monkeypatch.setattr(module, "Subset", Watched)
    made = settings(table="few-shot", seeds="0,2")
    done = reproduce(made)
    assert set(shown) == {(count, seed, count) for count in (1, 4) for seed in (0, 2)}
    rows = by_name(done)
    names = ("mean map", "ridge", "linear head", "learned-7", "learned-7 log scale 40", "path:7:64 log silog+ce")
    assert list(rows)[:18] == [f"few-shot/nyu/{name}, {count}" for name in names for count in (1, 4, "all")]
    for name in ("ridge", "mean map"):
        one, all_of_them = rows[f"few-shot/nyu/{name}, 1"], rows[f"few-shot/nyu/{name}, all"]
        assert len(set(one.scores["abs_rel"])) == 2 and len(all_of_them.seeds) == 1 and one.parameters == all_of_them.parameters
    assert rows["few-shot/nyu/mean map, all"].scores == rows["control/nyu/mean map"].scores
    assert rows["few-shot/nyu/ridge, all"].scores == rows["control/nyu/ridge (value)"].scores
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: pytest.fail("this row was done"))
    assert by_name(reproduce(made)) == rows


def test_a_linear_head_is_more_than_prompts_can_say(tiny_clip):
    head = LinearHead(DepthTokens(tiny_clip, depth="learned:5", bins="log"))
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(1))
        head.bias.normal_(generator=torch.Generator().manual_seed(2))
    patches = torch.nn.functional.normalize(torch.randn(2, 64, 3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    out = head.depth_from(patches, head.text_features())
    logits = head.scale * torch.einsum("bchw,nc->bnhw", patches, head.weight) + head.bias[None, :, None, None]
    assert torch.allclose(out.probs, logits.softmax(dim=1), atol=1e-3) and out.depth.shape == (2, 1, 3, 4)
    assert sum(p.numel() for p in head.trainable().values()) == 5 * 65


def test_command(settings, capsys, tmp_path):
    made = settings()
    words = ["reproduce", "--data", made.data[0], "--clip", made.clip, "--table", "5", "--steps", "2", "--seeds", "0", "--workers", "0"]
    main([*words, "--plan", "--out", str(tmp_path / "none")])
    planned = capsys.readouterr().out
    assert "2 rows, 1 of them trained for 1 seed: 1 run of 2 steps" in planned and "control/nyu/ridge (layer4)" in planned
    assert "paper/t5/nyu/4o4d-learned-7" in planned and "template 4o4d" in planned
    assert not (tmp_path / "none").exists() and "features to store: " in planned and " on this machine (an estimate" in planned
    main(["reproduce", "--plan", "--table", "3"])
    planned = capsys.readouterr().out
    assert planned.startswith("14 rows, 2 of them trained for 5 seeds: 10 runs of 25 epochs\n") and "paper/t3/kitti/depth-7" in planned
    main(["reproduce", "--plan", "--table", "3", "--data", "nyu:nowhere", "--clip", made.clip, "--json"])
    planned = json.loads(capsys.readouterr().out)
    assert planned["bytes"] is None and len(planned["rows"]) == 7  # data that is not there yet
    main([*words, "--out", str(tmp_path / "run"), "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows][:3] == ["control/nyu/constant", "control/nyu/mean map", "control/nyu/ridge (layer4)"]
    assert rows[2]["settings"] == {"dense": "layer4"} and rows[2]["trained_parameters"] == 65 and rows[2]["difference_to_mean_map"]
    main([*words, "--out", str(tmp_path / "run")])
    shown = capsys.readouterr().out
    assert "0.317 → " in shown and "table.html" in shown
    for wrong, message in (
        (["--table", "depthclip", "--data", "kitti:x"], "needs --data nyu:ROOT"), (["--seeds", "x", "--data", "scenes"], "seeds 'x'"),
        (["--data", "folder:x"], "stands for no published data set"), ([], "no data"),
        (["--data", "scenes", "--data", "nyu:x"], "both stand"),
        (["--data", "scenes", "--as-released", "--as-written"], "opposites"), (["--data", "scenes", "--views", "-1"], "not be negative"),
        (["--data", "scenes", "--as-written", "--views", "4"], "is --views 0"), (["--data", "scenes", "--steps", "0"], "steps must be"),
        (["--data", "scenes", "--as-released", "--steps", "9"], "whole epochs"),
        (["--data", "scenes", "--as-released", "--table", "few-shot"], "leave out --as-released"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(["reproduce", *wrong])
        assert stop.value.code == 2 and message in capsys.readouterr().err
