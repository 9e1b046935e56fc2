"""One self-contained HTML page for a finished study: what lies near the tokens, their shape, their patches, and what words can do."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..report.html import page, picture, shown, table
from .plots import distance_map, path_plot, token_maps
from .run import Study
from .page_scores import words, worth
from .scores import TOKENS, TokenMaps

PANELS = 12
"""Up to so many tokens each has its own heat map; beyond, bins next to each other share one."""


def study_page(study: Study, values: dict[str, Any]) -> str:
    """The page. values: the same study as `study_files.to_dict` gives it."""
    model = study.model
    parts = [
        f"<h1>A study of {len(model.centres)} depth tokens</h1>",
        f"<p>A frozen CLIP ({html.escape(model.clip.name)}) reads one sentence per depth bin, “{html.escape(model.settings['template'])}”, "
        "and says of every patch of an image which sentence fits it best. What stands for <code>{depth}</code> here are "
        f"{_kind(study)}, for bins centred at {_centres(study)} m. This page asks what they mean.</p>",
        _bundled(study),
        "".join(f"<p class='says'>Note: {html.escape(note)}.</p>" for note in study.notes),
        *_neighbours(study),
        *_geometry(study),
        *worth(study),
        *_maps(study),
        *words(study),
        *_footer(values),
    ]
    return page("depthtokens study", parts)


def _kind(study: Study) -> str:
    """What stands for {depth}, in words."""
    model, spec = study.model, str(study.model.settings["depth"])
    if model.words:
        kind = f"words ({html.escape(', '.join(model.words))})"
    elif spec.startswith("path:"):
        kind = f"{len(model.centres)} vectors on a line through {len(model.tokens['depth'])} learned ones"
    else:
        kind = f"{len(model.centres)} {'learned vectors' if spec.startswith('learned') else 'vectors drawn at random'}"
    return f"{kind}, and for each <code>{{ctx}}</code> a learned vector" if "context" in model.tokens else kind


def _bundled(study: Study) -> str:
    if study.model.clip.name != "bundled":
        return ""
    candidates = "only those are candidates here" if study.settings.trained_vocabulary_only else "here all are candidates"
    return (
        "<p>This is the small CLIP that comes with the package. It has seen nothing but rendered scenes and their captions, with a few "
        "hundred of its vocabulary's entries in them; the vectors of all others are still as they were drawn at random, so that such a "
        f"neighbour says nothing about the word ({candidates}; <code>--trained-vocabulary-only</code> decides).</p>"
    )


def _centres(study: Study) -> str:
    numbers = [f"{centre:.3g}" for centre in study.model.centres.tolist()]
    return ", ".join(numbers if len(numbers) <= 20 else [*numbers[:3], "…", *numbers[-3:]])


def _neighbours(study: Study) -> Iterator[str]:
    position, template = study.settings.position, study.settings.template or study.model.settings["template"]
    read_at = "at end-of-text" if position is None else f"at position {position} of the sequence (its start is 0), not at end-of-text"
    yield "<h2>Nearest neighbours</h2>"
    yield (
        f"<p>Every one of {study.vocabulary:,} vocabulary entries takes the place of <code>{{depth}}</code> in "
        f"“{html.escape(template)}”. <b>Embedding space</b>: the distance between what CLIP's text tower makes of the two whole sentences, "
        f"both of length one, read {read_at}; 0 is the same, 1.41 unrelated. <b>Token space</b>: the distance between what is put into the "
        "sentence, before CLIP has read it. <code>{depth_3}</code> is another token of the same set. A dash marks a fragment, which other "
        "letters follow in a text.</p>"
    )
    of = f"of {len(study.model.centres)}"
    for name in dict.fromkeys(found.words for found in study.neighbours):
        tables = {found.space: found.rows for found in study.neighbours if found.words == name}
        closest = sum(row[0].name.startswith("{depth_") for row in tables["embedding"])
        rows = [
            [f"depth_{i}{_said(study, name, i)}", f"{centre:.3g}", _list(study, embedding), _list(study, token)]
            for i, (centre, embedding, token) in enumerate(
                zip(study.model.centres.tolist(), tables["embedding"], tables["token"], strict=True)
            )
        ]
        text = table(["", "bin (m)", "nearest in embedding space", "nearest in token space"], rows, words=2)
        if name == TOKENS:
            yield text
            yield f"<p class='says'>In embedding space, another token of the set is the nearest neighbour for {closest} {of} tokens.</p>"
        else:
            nearest = f"another word of the scale is the nearest neighbour for {closest} {of}"
            yield f"<details><summary>The same for the human scale <b>{html.escape(name)}</b> ({nearest})</summary>{text}</details>"


def _said(study: Study, name: str, i: int) -> str:
    words = study.model.words if name == TOKENS else study.scale_words[name]
    return f" <span class='small'>{html.escape(words[i])}</span>" if words else ""


def _list(study: Study, row: list[Any]) -> str:
    return ", ".join(f"{html.escape(shown(n.name, study.fragments))} <span class='ci'>{n.distance:.3f}</span>" for n in row)


def _geometry(study: Study) -> Iterator[str]:
    labels = study.model.words or [f"depth_{i}" for i in range(len(study.model.centres))]
    yield "<h2>How the tokens lie to each other</h2>"
    yield "<p>Distances between the tokens' sentences in embedding space. If meaning followed depth, they would grow away from the "
    yield "diagonal.</p>" + picture(distance_map(study.distances[TOKENS], labels), "distances between tokens", "plot")
    if study.paths:
        path = study.paths[TOKENS]
        yield "<p>The same sentences seen from the two directions in which they differ most (principal components); the line joins bins in "
        yield "order of depth.</p>" + picture(path_plot(path, study.model.centres, labels), "path of the tokens", "plot")
        rows = [
            [html.escape(name), *(html.escape(str(c)) for c in (found.along_order, found.along_first, found.pairs))]
            for name, found in study.paths.items()
        ]
        yield table(["", "along the shortest path", "along the first component", "distances of pairs"], rows)
        yield (
            "<p class='small'>Spearman's rank correlation with depth: of the order in which the shortest path through all sentences visits "
            "them; of the place on the first component; and of distances between two sentences with the difference of their log depths. "
            "1 = the order of depth exactly, 0 = none. p: how often an order drawn at random comes as far from 0.</p>"
        )
        yield (
            f"<p class='says'>The shortest path visits the tokens as {' → '.join(map(str, path.order))}: rank correlation with depth "
            f"{html.escape(str(path.along_order))}.</p>"
        )
    low, middle, high = study.vocabulary_norms
    lengths = study.norms[TOKENS].tolist()
    given = ", ".join(f"{length:.3g}" for length in (lengths if len(lengths) <= 20 else [min(lengths), max(lengths)]))
    which = "from bin 0 on" if len(lengths) <= 20 else "least and greatest"
    yield (
        f"<p>Length of the vectors that stand for <code>{{depth}}</code> ({which}): {given}. Vocabulary entries: median {middle:.3g}, "
        f"nine in ten between {low:.3g} and {high:.3g}.</p>"
    )


def _maps(study: Study) -> Iterator[str]:
    if not study.maps:
        return
    yield "<h2>Which patches speak for which token</h2>"
    yield (
        f"<p>{len(study.maps)} test images spread over the split. Bright patches are those in which CLIP gives a token's sentence a high "
        "probability among all; the last picture is the depth that follows, the mean of the bins' depths by these probabilities.</p>"
    )
    if len(study.model.centres) <= PANELS:
        means = np.concatenate([found.probs.reshape(len(found.probs), -1) for found in study.maps], axis=1).mean(axis=1)
        told = ", ".join(f"depth_{i} {mean:.2f}" for i, mean in enumerate(means))
        yield f"<p class='says'>Mean probability over all patches of these images: {told}.</p>"
    for found in study.maps:
        yield picture(_map(study, found), f"token maps of {found.name}", "plot")


def _map(study: Study, found: TokenMaps) -> bytes:
    centres: NDArray[np.float64] = study.model.centres.cpu().double().numpy()
    depth = np.einsum("nhw,n->hw", found.probs, centres)
    groups = np.array_split(np.argsort(centres), min(PANELS, len(centres)))
    named = [f"depth_{group[0]}" if len(group) == 1 else f"depth_{group[0]}–{group[-1]}" for group in groups]
    labels = study.model.words if study.model.words and len(centres) <= PANELS else named
    if len(groups) == len(centres):
        return token_maps(found.image, found.probs, centres, labels, depth)
    return token_maps(
        found.image, [found.probs[group].sum(axis=0) for group in groups], [centres[group].mean() for group in groups], labels, depth
    )


def _footer(values: dict[str, Any]) -> Iterator[str]:
    model, data, versions = values["model"], values.get("data"), values["versions"]
    yield "<h2>What this rests on</h2>"
    if data:
        searched = f"; words searched on {data['searched_on']}" if data["searched_on"] and "search" in values else ""
        yield f"<p class='small'>{data['images']} images of {html.escape(data['name'])} {data['split']}{html.escape(searched)}. "
        yield f"{html.escape(data['protocol_in_words'])}.</p>"
    yield (
        f"<p class='small'>Tokens {html.escape(values['tokens'])}; CLIP {html.escape(values['clip']['name'])}, "
        f"{values['clip']['fingerprint'][:12]}; {model['dense']} features, logit scale {model['scale_value']:.4g}; seed "
        f"{values['settings']['seed']}; {values['seconds']:.0f} s. "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}. "
        "The numbers are in study.json, neighbours.csv and, with images, scores.csv beside this page.</p>"
    )
