"""Tables of a study: what a reader sees of rows whose facts are fields."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from depthtokens import Scenes
from depthtokens.depth.protocol import find_protocol
from depthtokens.experiment.source import Reading, open_source
from depthtokens.report.table import Strong
from depthtokens.study.ablations import replaced
from depthtokens.study.data import StudyData
from depthtokens.study.neighbours import Neighbour, NeighbourTable
from depthtokens.study.scores import StudyRow, score
from depthtokens.study.tables import difference, paper_table, row_name, score_table, terminal_tables
from depthtokens.study.words import WordSearch


@pytest.fixture(scope="module")
def study(tiny_clip, model_of):
    """As much of a study as its tables read: three tokens, one of them replaced, and best words that are the tokens themselves."""
    model = model_of(tiny_clip, depth="learned:3")
    source = open_source(model, Scenes("indoor", "test", 3, size=(64, 96)), reading=Reading(workers=0))
    text = model.text_features().detach()
    change = replaced(text, model.centres, 1, -text[1], "close</w>")
    rows = score(model, {}, {"best words": text}, [change], StudyData(source, find_protocol("auty2023")))
    found = SimpleNamespace(start_scores=[1.0])
    entries = [["far</w>"], ["very</w>", "near</w>"], ["lik"]]
    search = WordSearch(
        ["far</w>", "very near", "lik"], [False, True, False], text, found, 9, 5, {"tokens": 0.5, "best words": 0.25}, [1.0] * 3,
        [(), (), ()], entries,
    )  # fmt: skip
    return SimpleNamespace(
        model=model, rows=rows, compared=rows[:2], ablations=rows[2:], search=search, searches=[search], longer=[], carried=None,
        paper_table=None, fragments=True, neighbours=[], paths={},
    )  # fmt: skip


def test_rows_are_called_as_people_write_words(study):
    assert [row.name for row in study.rows] == ["tokens", "best words", "replaced 1 by close</w>"]
    assert [(row.tokens, row.word) for row in study.rows] == [((), None), ((), None), ((1,), "close</w>")]
    assert [row_name(study, row) for row in study.rows] == ["tokens", "best words", "replaced 1 by close"]


def test_a_table_of_scores(study):
    table = score_table(study, study.rows, searched=True)
    assert list(table.columns) == [
        "", "Patches ↓", "AbsRel ↓", "RMSE (m) ↓", "log10 ↓", "δ < 1.25 ↑", "AbsRel − tokens"
    ]  # fmt: skip
    assert [row[1] for row in table.rows] == [0.5, 0.25, None] and table.kinds == ["learned", "", ""]
    assert table.rows[0][2] == study.rows[0].result.interval("abs_rel") and table.rows[0][-1] is None
    assert table.rows[1][-1].mean == 0 and not isinstance(table.rows[1][-1], Strong)  # the same sentences
    assert len(score_table(study, study.rows).columns) == 6


def test_a_clear_difference_is_bold(study):
    row = study.rows[2]
    found = row.differences["abs_rel"]
    clear = StudyRow(row.name, row.kind, row.scores, row.result, {"abs_rel": type(found)(1.0, 0.5, 1.5, 0.95, 3, 1, 1, None)})
    assert difference(clear) == Strong(clear.differences["abs_rel"]) and difference(study.rows[0]) is None


def test_what_the_terminal_shows(study):
    scores, changes, nearest = terminal_tables(study)
    assert scores.title == "3 test images, 95% intervals" and [row[0] for row in scores.rows] == ["tokens", "best words"]
    assert changes.title == "the least and most harmful of 1 changes" and changes.rows[0][0] == "replaced 1 by close"
    assert [row[-1] for row in nearest.rows] == ["far", "very near", "lik-"]
    assert nearest.rows[0][0] == f"depth_0 ({study.model.centres[0]:.3g} m)"


def test_the_papers_table_of_neighbours():
    near = [[Neighbour("{depth_1}", 0.1774), Neighbour("close</w>", 0.5)], [Neighbour("close", 0), Neighbour("|", 0.25)]]
    table = paper_table(NeighbourTable("tokens", "embedding", near))
    assert table.text() == [["1", "{depth_1} 0.177", "close 0.000"], ["2", "close</w> 0.500", "| 0.250"]]
    assert list(table.columns) == ["", "depth_0", "depth_1"]
    assert table.markdown().endswith("| 2 | close&lt;/w> 0.500 | &#124; 0.250 |")  # as a reader then sees it
