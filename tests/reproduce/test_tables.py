"""What readers see of a reproduction, from made-up figures: published and measured side by side, in every form."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from depthtokens.depth.metrics import METRICS
from depthtokens.experiment.config import CONSTANT, MEAN_MAP
from depthtokens.experiment.result import Result
from depthtokens.reproduce import tables as module
from depthtokens.reproduce.measured import Measured
from depthtokens.reproduce.rows import control_row
from depthtokens.reproduce.run import Reproduced
from depthtokens.reproduce.settings import Reproduction
from depthtokens.reproduce.tables import (
    MARK,
    describe,
    lines,
    markdown,
    recipe,
    save,
    short_tables,
    tables,
    title,
    to_csv,
    to_html,
    to_json,
)

IMAGES = 12


def made_up(row, spread, seed):
    """Figures about 0.3, for two seeds `spread` apart where the row has seeds."""
    seeds = [0, 1] if not row.image_free and row.seeded else [0]
    rng = np.random.default_rng(seed)
    images = {metric: [(0.3 + spread * s + 0.05 * rng.random(IMAGES)).tolist() for s in seeds] for metric in METRICS}
    scores = {metric: [sum(run) / IMAGES for run in runs] for metric, runs in images.items()}
    parameters = 1 if row.image_free else 7 * 64 if row.learns else 0
    return Result(seeds, parameters, scores, images, [f"{i}.png" for i in range(IMAGES)], 0.25)


@pytest.fixture
def finished(tmp_path):
    """A finished reproduction of one table."""

    def make(table="3", spread=0.3, data=("nyu:somewhere",)):
        settings = Reproduction(data=data, table=table, clip="bundled", seeds="0..1", steps=3, out=str(tmp_path))
        rows = settings.rows()
        used = {(row.role, row.protocol) for row in rows}
        rows += [control_row(role, kind, protocol) for role, protocol in sorted(used) for kind in (CONSTANT, MEAN_MAP)]
        data_facts = {
            f"{role} {split}": {"data": spec, "images": images, "depth_range": [0.001, 10.0], "eval_crop": "eigen"}
            for role, spec in settings.by_role().items()
            for split, images in (("train", 99), ("test", IMAGES))
        }
        facts = {
            "recipe": {**settings.recipe(), "clip": "bundled", "weights": None}, "clip": "0123456789abcdef", "data": data_facts,
            "versions": {"depthtokens": "0.1.0"},
        }  # fmt: skip
        return Reproduced(settings, facts, [Measured(row, made_up(row, spread, i)) for i, row in enumerate(rows)])

    return make


@pytest.fixture
def no_pictures(monkeypatch):
    """Pages without their pictures, which take a second each."""
    for name in ("row_plot", "numbers_plot"):
        monkeypatch.setattr(module, name, lambda *args: b"")


def find(done, name):
    return next(line for found in lines(done).values() for line in found if line.row.name == name)


def read(text):
    return list(csv.DictReader(text.splitlines()))


def test_published_and_measured_side_by_side(finished):
    done = finished()
    line = find(done, "paper/t3/nyu/learned-7")
    assert line.published("abs_rel") == 0.319 and line.figure("abs_rel").startswith("0.319 → ") and "±" in line.figure("abs_rel")
    assert not line.figure("abs_rel").endswith(MARK)  # seeds differ by more
    wrong = replace(line, measured=replace(line.measured, row=replace(line.row, published={"abs_rel": 99.0})))
    assert wrong.figure("abs_rel").endswith(MARK) and isinstance(wrong.figure("rmse"), type(line.result.measured("rmse")))
    assert find(finished(spread=0.001), "paper/t3/nyu/learned-7").figure("rmse").endswith(MARK)  # 0.960 published, 0.3 made up
    assert line.against_map is not None and line.against_base is None and line.row.label == "t3/learned-7" and line.kind == "learned"
    assert line.against_map.seed_std > 0 and "±" in str(line.against_map)


def test_controls_come_first_and_are_compared_with_the_other(finished):
    found = lines(finished())["nyu"]
    assert [line.row.label for line in found[:4]] == ["constant", "mean map", "ridge (layer4)", "t3/colour-7"]
    assert [line.kind for line in found[:4]] == ["control", "control", "control", ""]
    assert found[0].against_map is not None and found[1].against_map is None and found[1].against_base is not None


def test_the_row_that_others_are_compared_with_is_found_by_its_settings(finished):
    effects = finished("effects")
    base, head = find(effects, "effects/nyu/learned-7"), find(effects, "effects/nyu/linear head")
    assert base.against_base is None and head.against_base.images == IMAGES
    assert head.against_base == head.result.minus(base.result, "abs_rel")
    both = finished("all")
    assert find(both, "effects/nyu/learned-7").against_base is None  # the same run as table 3's
    assert find(both, "depthclip/nyu/P1").against_base is None  # scored by another protocol
    against = {line.row.protocol for line in lines(both)["nyu"] if line.against_map}
    assert against == {"auty2023", "depthclip"}  # each protocol has a mean map of its own
    assert all(line.against_base is None for line in lines(finished("6"))["nyu"])  # no such row


def test_stuck_runs_are_counted(finished):
    """A run that ends no better than the mean map; of what learns nothing there is none to count."""
    done = finished(spread=0.3)  # the second seed ends 0.3 worse than the first, and so than the map
    better = [replace(one, result=replace(one.result, scores={**one.result.scores, "abs_rel": [0.2, 0.6]}))
              if one.row.learns else one for one in done.rows]  # fmt: skip
    line = find(replace(done, rows=better), "paper/t3/nyu/learned-7")
    assert line.stuck == 1 and line.to_dict()["stuck_runs"] == 1 and "| 1 of 2 |" in markdown(replace(done, rows=better))
    assert find(done, "paper/t3/nyu/depth-7").stuck is None and find(done, "control/nyu/constant").stuck is None


def test_json(finished):
    done = finished()
    values = json.loads(json.dumps(to_json(done)))
    row = next(row for row in values["rows"] if row["name"] == "paper/t3/nyu/learned-7")
    assert list(row) == [
        "name", "asks", "settings", "protocol", "published", "seeds", "measured", "difference_to_mean_map", "difference_to_learned_7",
        "stuck_runs", "trained_parameters", "minutes", "images",
    ]  # fmt: skip
    assert row["published"]["abs_rel"] == 0.319 and row["seeds"] == [0, 1] and row["measured"].keys() == METRICS.keys()
    runs = row["measured"]["abs_rel"]["runs"]
    assert row["measured"]["abs_rel"]["mean"] == pytest.approx(sum(runs) / 2) and len(runs) == 2
    interval = row["measured"]["rmse"]["interval"]
    assert interval["low"] < row["measured"]["rmse"]["mean"] < interval["high"] and interval.keys() == {"mean", "low", "high", "level"}
    assert row["difference_to_mean_map"]["seed_std"] > 0 and row["difference_to_learned_7"] is None
    assert row["settings"] == {"template": "baseline", "depth": "learned:7", "bins": "linear", "scale": "auty2023", "dense": "layer4"}
    assert (
        values["rows"][0]["settings"] == {} and values["clip"] == "0123456789abcdef" and values["described"]["nyu"] == describe(done, "nyu")
    )


def test_csv(finished):
    done = finished()
    table = read(to_csv(done))
    assert len(table) == 2 * 2 + 4 + 3 and {r["published_d1"] for r in table if r["row"] == "paper/t3/nyu/learned-7"} == {"0.465"}
    first = find(done, table[0]["row"])
    assert [float(table[0][metric]) for metric in METRICS] == [first.result.scores[metric][0] for metric in METRICS]


def test_no_figures_were_published_on_scenes(finished):
    rendered = finished(data=("scenes",))
    assert {row["published_d1"] for row in read(to_csv(rendered))} == {""}
    assert "→" not in markdown(rendered).split("\n\n", 3)[-1] and not any(row["published"] for row in to_json(rendered)["rows"])
    assert title(rendered, "nyu") == "scenes (nyu's rows)" and title(finished(), "nyu") == "nyu"


def test_every_form_holds_the_same_table(finished, no_pictures):
    done = finished()
    table = tables(done)["nyu"]
    assert table.columns == [
        "row", "trained numbers", "AbsRel", "AbsRel 95 %", "AbsRel − mean map", "stuck", "AbsRel − learned-7", "RMSE", "log10", "δ < 1.25",
        "minutes",
    ]  # fmt: skip
    learned = find(done, "paper/t3/nyu/learned-7")
    cells = dict(zip(table.columns, next(row for row in table.text() if row[0] == "t3/learned-7"), strict=True))
    low, high = learned.result.interval("abs_rel").low, learned.result.interval("abs_rel").high
    assert cells["trained numbers"] == "448" and cells["AbsRel 95 %"] == f"[{low:.3f}, {high:.3f}]" and cells["minutes"] == "0.2"
    assert cells["AbsRel − mean map"] == str(learned.against_map) and cells["AbsRel − learned-7"] == ""
    assert cells["δ < 1.25"] == learned.figure("d1")
    text, page = markdown(done), to_html(done)
    assert all(f"| {' | '.join(row)} |" in text for row in table.text()) and "0.319 → " in text
    rows = [re.findall("<t[hd].*?>(.*?)</t[hd]>", row) for row in page.split("<tr")[1:]]
    assert [[unescape(re.sub("<[^>]+>", "", cell)) for cell in row] for row in rows] == [list(table.columns), *table.text()]
    assert table.kinds.count("control") == 3 and page.count('<tr class="control">') == 3
    assert short_tables(done)["nyu"].columns == [
        "row", "trained numbers", "AbsRel", "AbsRel 95 %", "AbsRel − mean map", "stuck", "δ < 1.25", "minutes",
    ]  # fmt: skip
    for form in (text, unescape(page)):
        assert describe(done, "nyu") in form and recipe(done) in form and "CLIP bundled  0123456789ab; float32; depthtokens 0.1.0." in form


def test_page(finished):
    whole = to_html(finished())
    page = re.sub('base64,[^"]+', "", whole)
    assert page.count("<tr") == 10 and "http" not in page and "protocol auty2023" in page and len(whole) > len(page) + 50_000
    alts = re.findall('<img class="plot" alt="(.*?)"', page)
    assert [alt.split(",")[0] for alt in alts] == ["Rows by AbsRel", "Trained numbers against AbsRel"] and "lines: constant 0." in alts[0]
    assert page.count(' class="more"') == 4 * 10 and page.index("<img") < page.index("<table")  # columns on demand


def test_page_of_effects(finished, no_pictures):
    effects = to_html(finished("effects", data=("nyu:<root>", "kitti:x")))
    assert "nyu:&lt;root&gt;" in effects and "<root>" not in effects
    assert effects.count("what it is there to tell") == 2 and "no language at all: what do the features hold?" in effects


def test_few_shot(finished):
    """Heads by numbers of training images: as a table, and as a picture on the page."""
    done = finished("few-shot")
    few = next(part for part in markdown(done).split("\n\n") if part.startswith("| learned from"))
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in few.splitlines()]
    sizes = ["1 image", *(f"{count} images" for count in (4, 16, 64, 99, 256))]
    assert head == ["learned from", "trained numbers", *sizes]
    assert [row[0] for row in rows] == ["mean map", "ridge", "linear head", "learned-7", "learned-7 log scale 40", "path:7:64 log silog+ce"]
    assert rows[3][2] == str(find(done, "few-shot/nyu/learned-7, 1").result.measured("abs_rel")) and "±" in rows[3][2]
    page = to_html(done)
    assert page.count('<img class="plot"') == 1 and "<th>learned from</th>" in page
    assert [line.kind for line in lines(done)["nyu"][:4]] == ["control", "control", "control", "learned"]


def test_words(finished):
    done = finished()
    assert describe(done, "nyu").startswith(f"nyu:somewhere: 99 training and {IMAGES} test images. protocol auty2023 (Auty & ")
    assert "0.001-10 m, crop eigen" in describe(done, "nyu") and "depthclip" in describe(finished("all"), "nyu")
    assert recipe(done).startswith(
        "3 steps of batch 16, AdamW, OneCycle to 0.000357, seeds 0..1; CLIP frozen, stored features of plain images"
    )
    released = replace(done, settings=replace(done.settings, as_released=True, steps=None))
    assert "25 epochs of batch 16" in recipe(released) and "as released: BatchNorm adapts" in recipe(released)
    written = replace(done, settings=replace(done.settings, views=0, steps=None))
    assert "; as the paper writes: CLIP frozen, new random views in every epoch" in recipe(written)


def test_files(finished, no_pictures, tmp_path):
    done = finished()
    paths = save(done)
    assert [path.name for path in paths] == ["table.md", "table.csv", "table.html", "table.json"]
    assert [path.read_text(encoding="utf-8") for path in paths[:3]] == [markdown(done), to_csv(done), to_html(done)]
    assert json.loads(paths[3].read_text()) == json.loads(json.dumps(to_json(done))) and paths[0].parent == tmp_path


def test_no_place_of_this_machine_is_in_a_table(finished, no_pictures, tmp_path):
    done = finished(data=("nyu:/home/me/nyu",))
    done.facts["recipe"] |= {"clip": "/home/me/clip.pt", "weights": "/home/me/w.pt"}
    for path in save(done):
        text = path.read_text()
        assert "/home/me" not in text and str(tmp_path) not in text, path
    assert "CLIP clip.pt w.pt" in markdown(done) and to_json(done)["data"]["nyu test"]["data"] == "nyu:nyu"
