"""One self-contained HTML page for a finished study. Each section is a template and the function that fills it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..depth.metrics import METRICS, QUOTED
from ..experiment.statistics import Difference
from ..report.html import fragment, page
from ..report.table import Table
from . import BEST, MAIN, TOKENS
from .ablations import PAIR
from .neighbours import EMBEDDING, TOKEN
from .plots import ablation_chart, bars, distance_map, map_plot, path_plot
from .run import Study
from .scores import StudyRow, TokenMaps
from .tables import best_found, carried_table, phrase_table, row_name, score_table

PANELS = 12
"""Up to so many tokens each has its own heat map; beyond, bins next to each other share one."""
LISTED = 20
"""Up to so many numbers stand one by one in a sentence."""
Context = Mapping[str, Any]
"""What a template names."""


def study_page(study: Study, tokens: str) -> str:
    """The page.

    Args:
        study: the study.
        tokens: what the user calls the tokens, a file or words.
    """
    filled = {template: fill(study) for template, fill in SECTIONS.items()}
    model, settings, data = study.model, study.settings, study.data
    return page(
        "study.html",
        count=len(model.centres),
        clip=model.clip.identity,
        sentence=model.settings.template,
        kind=_kind(study),
        context="context" in model.tokens,
        centres=_listed(model.centres.tolist(), 3),
        trained_only=settings.trained_vocabulary_only,
        notes=study.notes,
        sections=[fragment(template, **context) for template, context in filled.items() if context is not None],
        data=None if data is None else data.test,
        searched_on=None if data is None or study.search is None else data.searched_on,
        scores=study.rows[0].scores if study.rows else None,
        tokens=tokens,
        model=model.settings,
        scale=float(model.log_scale.exp()),
        seed=settings.seed,
        seconds=study.seconds,
        versions=study.versions,
    )


def neighbours_section(study: Study) -> Context:
    """What lies near the tokens, and near each scale's words."""
    model = study.model
    tables = {(table.words, table.space): table.rows for table in study.neighbours}
    parts = []
    for name, words in {TOKENS: model.words, **study.scale_words}.items():
        near = list(zip(tables[name, EMBEDDING], tables[name, TOKEN], strict=True))
        closest = sum(embedding[0].name.startswith("{depth_") for embedding, _ in near)
        parts.append({"name": name, "words": words, "near": near, "closest": closest})
    return {
        "own": TOKENS,
        "parts": parts,
        "centres": model.centres.tolist(),
        "fragments": study.fragments,
        "vocabulary": study.vocabulary,
        "sentence": study.settings.template or model.settings.template,
        "position": study.settings.position,
    }


def geometry_section(study: Study) -> Context:
    """How the tokens lie to each other."""
    labels = study.model.words or [f"depth_{i}" for i in range(len(study.model.centres))]
    path, lengths = study.paths.get(TOKENS), study.norms[TOKENS].tolist()
    few = len(lengths) <= LISTED
    rows = [[name, *map(str, (found.along_order, found.along_first, found.pairs))] for name, found in study.paths.items()]
    return {
        "distances": distance_map(study.distances[TOKENS], labels),
        "path": path,
        "plot": path_plot(path, study.model.centres, labels) if path else None,
        "correlations": Table(["", "along the shortest path", "along the first component", "distances of pairs"], rows),
        "which": "from bin 0 on" if few else "least and greatest",
        "lengths": lengths if few else [min(lengths), max(lengths)],
        "vocabulary": study.vocabulary_norms,
    }


def worth_section(study: Study) -> Context | None:
    """What happens to the score when tokens are changed."""
    rows = study.ablations
    if not rows:
        return None
    single, pairs = [row for row in rows if row.kind != PAIR], [row for row in rows if row.kind == PAIR]
    whole = study.rows[0].result.interval(MAIN).mean
    charts = {}
    for part, what in ((single, "scores after each single change"), (pairs, "scores of two tokens alone")):
        if part:
            named = {row_name(study, row): row.result.interval(MAIN) for row in part}
            charts[what] = ablation_chart(named, whole, _axis(), what, kinds=[row.kind for row in part])
    worst = max(single, key=lambda row: row.result.interval(MAIN).mean, default=None)
    return {
        "charts": charts,
        "single": len(single),
        "clear": sum(row.differences is not None and row.differences[MAIN].clear for row in single),
        "metric": METRICS[MAIN].label,
        "worst": worst and row_name(study, worst),
        "by": worst and worst.differences and worst.differences[MAIN],
        "count": len(rows),
        "table": score_table(study, rows),
    }


def maps_section(study: Study) -> Context | None:
    """Which patches speak for which token."""
    if not study.maps:
        return None
    means = None
    if len(study.model.centres) <= PANELS:
        means = np.concatenate([found.probs.reshape(len(found.probs), -1) for found in study.maps], axis=1).mean(axis=1).tolist()
    return {"means": means, "pictures": [(found.name, _map(study, found)) for found in study.maps]}


def words_section(study: Study) -> Context | None:
    """Best words, human scales and controls beside the tokens."""
    rows = study.compared
    if not rows:
        return None
    learned = any(vectors.requires_grad for vectors in study.model.tokens.values())  # depth tokens, or context
    tokens = "learned tokens" if learned else "tokens"
    best = next((row for row in rows if row.kind == BEST), None)
    return {
        "search": study.search,
        "starts": len(study.search.found.start_scores) if study.search else 0,
        "best_words": _best_words(study),
        "learned": learned,
        "chart": bars({row.name: row.result.interval(MAIN) for row in rows}, _axis(), best=TOKENS),
        "table": score_table(study, rows, searched=True),
        "own": TOKENS,
        "tokens": tokens,
        "metric": METRICS[MAIN].label,
        "verdicts": _verdicts(best, tokens) if best else [],
    }


def phrases_section(study: Study) -> Context | None:
    """Phrases beside the best words, and what both are worth in another CLIP."""
    carried, bins = study.carried, list(enumerate(study.model.centres.tolist()))
    if not study.longer and carried is None:
        return None
    found = [[f"depth_{i}", f"{centre:.3g}", *(best_found(study, search, i) for search in study.searches)] for i, centre in bins]
    heads = ["", "bin (m)", *(search.name for search in study.searches)]
    texts = None
    if carried is not None:
        marked = {name: [text + " *" * carried.differs[name][i] for i, text in enumerate(row)] for name, row in carried.texts.items()}
        rows = [[f"depth_{i}", f"{centre:.3g}", *(row[i] for row in marked.values())] for i, centre in bins]
        texts = Table(["", "bin (m)", *marked], rows, words=len(marked))
    return {
        "longest": len(study.searches),
        "scored": [search.candidates for search in study.longer],
        "scores": phrase_table(study) if study.longer else None,
        "found": Table(heads, found, words=len(study.searches)),
        "carried": carried and carried_table(study),
        "other": carried and carried.model.clip.identity,
        "texts": texts,
        "metric": METRICS[MAIN].label,
        "seconds": study.settings.search_seconds,
    }


SECTIONS: dict[str, Callable[[Study], Context | None]] = {
    "study/neighbours.html": neighbours_section,
    "study/geometry.html": geometry_section,
    "study/worth.html": worth_section,
    "study/maps.html": maps_section,
    "study/words.html": words_section,
    "study/phrases.html": phrases_section,
}
"""The page's sections in order: template -> the function that fills it, which gives None where a study has nothing for it."""


def _kind(study: Study) -> str:
    """What stands for {depth}, in words."""
    words, count = study.model.settings.words, len(study.model.centres)
    if words.kind == "words":
        return f"words ({', '.join(study.model.words)})"
    if words.anchors:
        return f"{count} vectors on a line through {words.anchors} learned ones"
    return f"{count} {'learned vectors' if words.kind == 'learned' else 'vectors drawn at random'}"


def _listed(numbers: list[float], ends: int) -> str:
    """Numbers one by one; of many, some at each end."""
    written = [f"{number:.3g}" for number in numbers]
    return ", ".join(written if len(written) <= LISTED else [*written[:ends], "…", *written[-ends:]])


def _axis() -> str:
    """What the charts of scores show."""
    metric = METRICS[MAIN]
    return f"{metric.label}, mean over test images with 95% interval ({'longer' if metric.higher_is_better else 'shorter'} is better)"


def _map(study: Study, found: TokenMaps) -> bytes:
    """The heat maps of one image."""
    centres: NDArray[np.float64] = study.model.centres.cpu().double().numpy()
    depth = np.einsum("nhw,n->hw", found.probs, centres)
    groups = np.array_split(np.argsort(centres), min(PANELS, len(centres)))
    named = [f"depth_{group[0]}" if len(group) == 1 else f"depth_{group[0]}–{group[-1]}" for group in groups]
    labels = study.model.words if study.model.words and len(centres) <= PANELS else named
    if len(groups) == len(centres):
        return map_plot(found.image, found.probs, centres, labels, depth)
    return map_plot(
        found.image, [found.probs[group].sum(axis=0) for group in groups], [centres[group].mean() for group in groups], labels, depth
    )


def _best_words(study: Study) -> Table | None:
    """The best word for each bin, and what is lost without it."""
    if study.search is None:
        return None
    best = study.search.objective[BEST]
    rows = [
        [f"depth_{i}", f"{centre:.3g}", f"{round(without - best, 3) + 0.0:+.3f}", best_found(study, study.search, i)]
        for i, (centre, without) in enumerate(zip(study.model.centres.tolist(), study.search.without, strict=True))
    ]
    return Table(["", "bin (m)", f"{METRICS[MAIN].label} without it", "best word found"], rows, words=1, narrow=True)


def _verdicts(best: StudyRow, tokens: str) -> list[tuple[str, Difference, str]]:
    """Label, best words minus tokens, and what that says, for each quoted metric."""
    found = []
    for metric in (METRICS[name] for name in QUOTED):
        difference = (best.differences or {}).get(metric.name)
        if difference is not None:
            better = "the words are better" if metric.better(difference.mean, 0) else f"the {tokens} are better"
            label = f"{metric.label} ({metric.unit})" if metric.unit else metric.label
            found.append((label, difference, better if difference.clear else "not told apart"))
    return found
