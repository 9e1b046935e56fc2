"""The demonstration's page: its table, its pictures, its words, in one file."""

from __future__ import annotations

import base64
import io
import re
from html import unescape

import numpy as np
import pytest
from PIL import Image

from depthtokens.demo.page import COLUMNS, SCENES, demo_page, nearest_to_learned, score_table, write_page
from depthtokens.demo.run import DemoSettings, run_demo
from depthtokens.depth.metrics import METRICS
from depthtokens.report.html import shown
from depthtokens.report.table import Strong

SETTINGS = DemoSettings(train=24, test=8, size=(96, 128), epochs=2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return run_demo(SETTINGS, out, cache=out / "scenes")


@pytest.fixture(scope="module")
def page(demo):
    return demo_page(demo)


def test_one_file(demo, page, tmp_path):
    write_page(demo, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert page.count("<tr") >= len(demo.results) + 7 and page.count("data:image/png;base64,") == 6 * SCENES + 2
    assert not re.search(r"(src|href)=.(?!data:)", page)  # self-contained
    assert "indoor scenes" in page and "24 training and 8 test scenes of 96×128 pixels" in page and "Mean over 8 images" in page
    assert "40.0, 2 epochs of batch\n16, learning rate 0.01." in page and demo.clip.fingerprint[:12] in page


def test_table(demo, page):
    table = score_table(demo)
    assert table.columns == ["row", "trained numbers", *(METRICS[name].heading for name in COLUMNS)]
    assert [row[0] for row in table.rows] == list(demo.results) and table.kinds[:4] == ["control", "control", "control", ""]
    assert dict(zip(demo.results, table.kinds, strict=True))["learned-7"] == "learned"
    for column, name in enumerate(COLUMNS, 2):
        scores = [result.score(name) for result in demo.results.values()]
        best = (max if METRICS[name].higher_is_better else min)(scores)
        cells = [row[column] for row in table.rows]
        assert [cell.cell if isinstance(cell, Strong) else cell for cell in cells] == scores
        assert [isinstance(cell, Strong) for cell in cells] == [score == best for score in scores]
    first = page.split("<table>")[1].split("</table>")[0]
    rows = [re.findall("<t[hd].*?>(.*?)</t[hd]>", row) for row in first.split("<tr")[1:]]
    assert [[unescape(re.sub("<[^>]+>", "", cell)) for cell in row[:-1]] for row in rows] == [table.columns, *table.text()]
    worst = max(result.score("abs_rel") for result in demo.results.values())
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%\"></div>", first)]
    assert widths == pytest.approx([100 * result.score("abs_rel") / worst for result in demo.results.values()], abs=0.06)
    assert score_table(demo, ["d3"], "A title").columns == ["row", "trained numbers", METRICS["d3"].heading]


def test_pictures(demo, page):
    found = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)">', page)
    titles = ["image", "true depth", "depth-7 (words)", "learned-7", "error of words", "error of learned"]
    assert [alt for alt, _ in found] == ["depth scale", "error scale", *titles * SCENES]
    first, last = (np.asarray(Image.open(io.BytesIO(base64.b64decode(found[i][1])))) for i in (2, 2 + 6 * (SCENES - 1)))
    assert np.array_equal(first, demo.test.read(0)[0]) and np.array_equal(last, demo.test.read(7)[0])


def test_neighbours(demo, page):
    rows = nearest_to_learned(demo)
    assert len(rows) == 7 and all(len(row) == 5 for row in rows)
    table = unescape(re.sub("<[^>]+>", "", page.split("<table>")[2].split("</table>")[0]))
    for i, (centre, row) in enumerate(zip(demo.models["learned-7"].centres.tolist(), rows, strict=True)):
        assert f"{{depth_{i}}}{centre:.2f} m" + ", ".join(f"{shown(one.name)} {one.distance:.2f}" for one in row) in table
