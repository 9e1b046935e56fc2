"""The parts of a study's page that are about scores: what each token is worth, and how far words can go."""

from __future__ import annotations

import html
from collections.abc import Iterator

from ..depth.metrics import HIGHER_IS_BETTER
from ..experiment.statistics import Difference
from ..report.html import HEADINGS, arrow, picture, shown, table
from .plots import ablation_chart, bars
from .run import Study
from .scores import BEST, TOKENS, ScoredRow

COLUMNS = ("abs_rel", "rmse", "log10", "d1")
ABSREL = "AbsRel, mean over test images with 95% interval (shorter is better)"


def worth(study: Study) -> Iterator[str]:
    """What happens to the score when tokens are changed."""
    rows = [row for row in study.rows if row.kind in ("removed", "merged", "replaced", "pair")]
    if not rows:
        return
    tokens = study.rows[0]
    yield "<h2>What each token is worth</h2>"
    yield (
        "<p>The same tokens, scored again after one change and without any new training: a token and its bin <b>removed</b>; two bins next "
        "to each other <b>merged</b> into one token; a token <b>replaced</b> by its nearest vocabulary entry; or only a <b>pair</b> of "
        "tokens left.</p>"
    )
    single, pairs = [row for row in rows if row.kind != "pair"], [row for row in rows if row.kind == "pair"]
    whole = tokens.intervals["abs_rel"].mean
    for part, what in ((single, "scores after each single change"), (pairs, "scores of two tokens alone")):
        if part:
            chart = ablation_chart({shown_row(row, study): row.intervals["abs_rel"] for row in part}, whole, ABSREL, what)
            yield picture(chart, what, "plot")
    if single:
        clear = [row for row in single if row.differences and row.differences["abs_rel"].clear]
        worst = max(single, key=lambda row: row.intervals["abs_rel"].mean)
        yield (
            f"<p class='says'>Of {len(single)} single changes, {len(clear)} shift AbsRel by an amount whose interval leaves out 0. The "
            f"worst is “{html.escape(shown_row(worst, study))}”: {_plain(worst)}. Each interval stands for itself: of twenty changes "
            "without any effect, about one would be counted.</p>"
        )
    yield f"<details><summary>All {len(rows)} changes as a table</summary>{_score_table(study, rows)}</details>"


def words(study: Study) -> Iterator[str]:
    """Best words, human scales and controls beside the tokens."""
    rows = [row for row in study.rows if row.kind in (TOKENS, BEST, "words", "control")]
    if not rows:
        return
    tokens = "learned tokens" if is_learned(study) else "tokens"
    yield "<h2>How far words can go</h2>"
    if study.search is not None:
        yield _searched(study)
    chart = bars({row.name: row.intervals["abs_rel"] for row in rows}, ABSREL, best=TOKENS)
    yield picture(chart, "scores of words and tokens", "plot") + _score_table(study, rows, study.search.objective if study.search else None)
    searched = "<b>Patches</b>: what the search lowers, mean relative error on the training patches it used. " if study.search else ""
    yield (
        f"<p class='small'><b>{TOKENS}</b>: the {tokens} under study. {searched}All else is measured on the test images by the protocol, "
        f"with 95% bootstrap intervals over images. The last column is AbsRel less that of the {tokens}, image by image: above 0 the "
        f"{tokens} are better, bold where the interval leaves out 0. <em>constant</em> and <em>mean map</em> are learned from the training "
        "split and never look at the image.</p>"
    )
    best = next((row for row in rows if row.kind == BEST), None)
    if best is not None and best.differences is not None:
        found = "; ".join(f"{HEADINGS[metric]} {difference}: {_verdict(metric, difference, tokens)}"
                          for metric, difference in best.differences.items() if metric in COLUMNS)  # fmt: skip
        yield f"<p class='says'>Best words less {tokens}, on test images: {found}.</p>"


def _searched(study: Study) -> str:
    search = study.search
    assert search is not None
    best = search.objective[BEST]
    trained = "Learned tokens are trained for the scale-invariant log loss of whole maps. " if is_learned(study) else ""
    rows = []
    for i, (word, phrase, without) in enumerate(zip(search.words, search.phrases, search.without, strict=True)):
        said = word if phrase else shown(word, study.fragments)
        rows.append([f"depth_{i}", f"{float(study.model.centres[i]):.3g}", f"{round(without - best, 3) + 0.0:+.3f}", html.escape(said)])
    return (
        f"<p>For each bin the best of {search.candidates:,} candidates, every vocabulary entry allowed above and every phrase of the "
        "hand-made scales, in the tokens' own sentence: words change one at a time while that helps (coordinate descent from "
        f"{len(search.found.start_scores)} starts), judged on {search.patches:,} patches of training images. So this is how far one word "
        "per bin can be pushed, as far as such a search finds it.</p>"
        f"<p><b>What is compared.</b> The search lowers the mean relative error of single patches, and nothing else. {trained}So this "
        "estimates the upper bound for words under its own objective; on the test images it may win or lose for that reason alone.</p>"
        + table(["", "bin (m)", "AbsRel without it", "best word found"], rows, words=1, narrow=True)
        + "<p class='small'>AbsRel without it: how much the error of those patches grows when the word and its bin are left out. Near 0, "
        "nothing is lost without the word: nothing can be read from which one it is.</p>"
    )


def _verdict(metric: str, difference: Difference, tokens: str) -> str:
    if not difference.clear:
        return "not told apart"
    return "the words are better" if (difference.mean > 0) == HIGHER_IS_BETTER[metric] else f"the {tokens} are better"


def _score_table(study: Study, rows: list[ScoredRow], objective: dict[str, float] | None = None) -> str:
    """A line per row; objective: a column of what a search lowered, where one was made."""
    cells = []
    for row in rows:
        numbers = [] if objective is None else [f"{objective[row.name]:.3f}" if row.name in objective else ""]
        for metric in COLUMNS:
            interval = row.intervals[metric]
            numbers.append(f"{interval.mean:.3f} <span class='ci'>[{interval.low:.3f}, {interval.high:.3f}]</span>")
        cells.append([html.escape(shown_row(row, study)), *numbers, _signed(row)])
    searched = [] if objective is None else ["Patches ↓"]
    heads = ["", *searched, *(f"{HEADINGS[metric]} {arrow(metric)}" for metric in COLUMNS), f"AbsRel − {TOKENS}"]
    return table(heads, cells, kinds=[{TOKENS: "learned", "control": "control"}.get(row.kind, "") for row in rows])


def _signed(row: ScoredRow) -> str:
    if row.differences is None:
        return ""
    difference = row.differences["abs_rel"]
    text = f"{difference.mean:+.3f} <span class='ci'>[{difference.low:+.3f}, {difference.high:+.3f}]</span>"
    return f"<b>{text}</b>" if difference.clear else text


def _plain(row: ScoredRow) -> str:
    return "" if row.differences is None else f"AbsRel {row.differences['abs_rel']}"


def is_learned(study: Study) -> bool:
    """Whether anything in the sentences under study was trained: depth tokens, or context."""
    return any(vectors.requires_grad for vectors in study.model.tokens.values())


def shown_row(row: ScoredRow, study: Study) -> str:
    """The name of a row for a reader, with a replacing word as `shown` gives it."""
    change, by, word = row.name.partition(" by ")
    return f"{change} by {shown(word, study.fragments)}" if by and row.kind == "replaced" else row.name
