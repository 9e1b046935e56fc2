"""Phrases: what is tried is what a gradient says, a planted phrase is found, time is kept, and longer ones are never worse."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from depthtokens import PromptEncoder
from depthtokens.cli import main
from depthtokens.study import phrases as module
from depthtokens.study import search as searching
from depthtokens.study.phrases import Phrases, Sentences
from depthtokens.study.search import Others, Words, search

TEMPLATE = "This object appears to be {depth}"
CENTRES = torch.tensor([1.0, 4.0, 9.0])


@pytest.fixture(scope="module")
def sentences(tiny_clip):
    """Some of the vocabulary, and what frames every text, which is left out."""
    found = Sentences(PromptEncoder(tiny_clip), TEMPLATE, [*range(0, 49_400, 100), *tiny_clip.tokenizer.start, *tiny_clip.tokenizer.end])
    assert len(found.entries) == 494
    return found


def planted(sentences, phrases, scale=20.0):
    """Patches, and the depth that these phrases give them."""
    patches = F.normalize(torch.randn(300, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    return patches, (scale * patches @ sentences.features(phrases).T).softmax(dim=1) @ CENTRES


def test_phrases_are_the_sentences_that_they_say(sentences):
    encoder = sentences.encoder
    texts = ["close wall", "far", "very far away", "close far"]
    phrases = [tuple(encoder.clip.tokenizer.ids(text)) for text in texts]
    expected = F.normalize(encoder([f"This object appears to be {text}" for text in texts]), dim=-1)
    assert torch.allclose(sentences.features(phrases), expected, atol=1e-5)


def test_the_best_entry_is_tried_where_the_error_is_linear(sentences, monkeypatch):
    """Against every entry of a stand-in for a text tower that is linear, with an error that nearly is."""
    generator = torch.Generator().manual_seed(0)
    weights, constant = torch.randn(64, 64, generator=generator), 1e4 * torch.randn(64, generator=generator)
    monkeypatch.setattr(sentences.encoder, "encode", lambda layout, vectors: vectors @ weights + constant)
    patches = torch.randn(64, 30, generator=generator)
    others = Others(torch.zeros(30), torch.ones(30), torch.full((30,), 5.0), torch.full((30,), 1 / 30))
    features = F.normalize((sentences.embeddings @ weights + constant).double(), dim=1)
    errors = (5 + (features @ patches.double()).sigmoid()).mean(dim=1)
    monkeypatch.setattr(module, "TRIED", 20)
    tried = sentences.promising((7, 7), 1, sentences.embeddings[5], others, patches)
    assert int(sentences.entries[errors.argmin()]) in tried and len(tried) == 20


def test_a_planted_phrase_is_found(sentences):
    """From what comes next to it where one entry is another; from words it is never worse than those. The same search finds the same."""
    entries = sentences.entries.tolist()
    phrases = [(entries[100], entries[200]), (entries[77], entries[12]), (entries[300], entries[400])]
    patches, truth = planted(sentences, phrases)
    ids = [(entry,) for entry in entries[:50]]
    words = Words(sentences.features(ids), patches, 20.0)
    one = search(words, truth, [(20, 30, 40)], CENTRES)

    def from_near():
        choices = Phrases(words, ids, sentences, 2)
        whole = [choices.index(phrase) for phrase in phrases]
        others = Others.of(choices.rows(whole), 0, truth.double(), CENTRES.double())
        near = [(entry, entries[200]) for entry in entries if entry != entries[100]]
        errors = others.errors(sentences.features(near) @ words.patches)
        near = choices.index(near[int(errors.argmin())])
        return choices, search(choices, truth, [*one.ends, (near, *whole[1:])], CENTRES)

    choices, found = from_near()
    assert found.converged and found.start_scores[0] == one.score >= found.end_scores[0]
    assert found.end_scores[1] < 1e-5 < found.start_scores[1] and [choices.ids[index] for index in found.ends[1]] == phrases
    assert from_near()[1] == found
    longer = Phrases(words, ids, sentences, 3, choices)
    assert longer.index(phrases[0]) == choices.index(phrases[0]) > 49 and longer.index((entries[10],)) == 10
    assert torch.equal(longer.rows([10, *found.indices]), choices.rows([10, *found.indices]))


def test_time_is_kept(sentences, monkeypatch):
    """By a clock that goes on by a second whenever it is looked at: each start has its share, and what it has found stays."""
    entries = sentences.entries.tolist()
    patches, truth = planted(sentences, [(entries[1], entries[2]), (entries[3], entries[4]), (entries[5], entries[6])])
    ids = [(entry,) for entry in entries[:200]]
    words = Words(sentences.features(ids), patches, 20.0)
    clock = iter(range(10**6))
    monkeypatch.setattr(searching.time, "monotonic", lambda: float(next(clock)))
    starts = [(0, 1, 2), (30, 40, 50)]
    found = search(Phrases(words, ids, sentences, 2), truth, starts, CENTRES, seconds=36)
    assert 36 <= next(clock) <= 42 and not found.converged and {step.start for step in found.history} == {0, 1}
    assert all(end < start for start, end in zip(found.start_scores, found.end_scores, strict=True))


def test_a_study_of_phrases(tiny_file, other_scenes, model_of, tmp_path, capsys):
    """Longer phrases are never worse where they were searched; all are scored, and carried to another CLIP."""
    from depthtokens import load_clip

    model_of(load_clip("bundled"), depth="learned:3").save(tmp_path / "tokens.safetensors")
    arguments = ["--data", "scenes", "--workers", "0", "--images", "0", "--patches", "100", "--trained-vocabulary-only"]
    arguments += ["--phrase", "2", "--carry-to", str(tiny_file), "--paper-table", "--out", str(tmp_path / "s")]
    main(["study", str(tmp_path / "tokens.safetensors"), *arguments])
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "s" / "study.json").read_text())
    (pairs,) = found["phrases"]
    assert found["search"]["objective"]["best words"] > pairs["objective"]["best pairs"] and pairs["converged"]
    assert pairs["start_scores"][:-1] == found["search"]["end_scores"] and len(pairs["start_scores"]) == 3  # nearest, two at random
    assert max(map(len, pairs["entries"])) == 2
    assert {"best words", "best pairs", "best words, as text", "best pairs, as text"} < {row["name"] for row in found["scores"]}
    carried = found["carried"]
    assert carried["clip"]["name"] == "tiny.pt" and carried["texts"].keys() == {"best words", "best pairs"}
    assert [len(texts) for texts in carried["texts"].values()] == [3, 3]
    page = (tmp_path / "s" / "report.html").read_text()
    for part in ("How far phrases go", "Best words in another CLIP", "Survives"):
        assert part in page
    assert "best pairs" in said and "Survives" in said and "the 15 nearest to each token" in said
    lines = (tmp_path / "s" / "paper_table.csv").read_text().splitlines()
    assert lines[0] == "token,rank,neighbour,distance" and len(lines) == 1 + 3 * 15 and "</w>" in "".join(lines)
