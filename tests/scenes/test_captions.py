"""Captions: true to what is visible, varied, short, and monotone in distance."""

import re

import numpy as np
import pytest

from depthtokens.scenes import caption, render
from depthtokens.scenes.content import Content
from depthtokens.scenes.furniture import FURNITURE
from depthtokens.scenes.outdoors import OUTDOORS
from depthtokens.scenes.words import DISTANCES, NAMES, PLACES, SIZE_WORDS, distance_level, metres_in_words, plural

KINDS = {*FURNITURE, *OUTDOORS, "wall"}
PHRASES = {}  # what may be said -> the kinds it may mean
for kind in KINDS:
    for name in NAMES.get(kind) or (kind,):
        PHRASES.setdefault(name, set()).add(kind)
    PHRASES.setdefault(plural(kind), set()).add(kind)


@pytest.fixture(scope="module", params=["indoor", "road"])
def contents(request) -> list[Content]:
    return [render(seed, request.param, (52, 68)).content for seed in range(40)]


def named_kinds(text: str) -> list[set[str]]:
    """For each thing that a caption names, the kinds it may be of."""
    for names in PLACES.values():
        for place in sorted(names, key=len, reverse=True):
            text = text.replace(place, " ")
    for fixed in ("on the wall", "in the wall", "right in front of the camera"):
        text = text.replace(fixed, " ")
    found = []
    for phrase in sorted(PHRASES, key=len, reverse=True):
        text, times = re.subn(rf"\b{re.escape(phrase)}\b", " ", text)
        found += [PHRASES[phrase]] * times
    return found


def test_only_visible_things_are_named(contents):
    for number, content in enumerate(contents):
        visible = {thing.kind for thing in content.things}
        for draw in range(12):
            text = caption(content, np.random.default_rng([number, draw]))
            for kinds in named_kinds(text):
                assert kinds & visible, (text, kinds, visible)


def test_captions_are_varied_short_and_repeatable(contents):
    texts = [caption(content, np.random.default_rng([number, draw])) for number, content in enumerate(contents) for draw in range(10)]
    assert texts[0] == caption(contents[0], np.random.default_rng([0, 0]))
    assert len(set(texts)) > 0.98 * len(texts)
    assert max(len(text.split()) for text in texts) <= 36
    assert all(text == text.strip() and text and "  " not in text for text in texts)
    spatial = re.compile(
        r"close|near|far|distan|remote|met(re|er)|\d m\b|behind|in front|midway|foreground|background|reach|arm|way off|deep"
    )
    assert 0.55 < np.mean([bool(spatial.search(text)) for text in texts]) < 0.85


def test_human_words_occur(contents):
    text = " ".join(
        caption(content, np.random.default_rng([number, draw])) for number, content in enumerate(contents) for draw in range(40)
    )
    scales = ("close", "slightly close", "neither close nor distant", "slightly distant", "distant", "small", "large", "slightly large")
    others = ("red", "green", "neither red nor green", "not in distance", "a little remote", "far", "appears to be", "this object")
    for words in (*scales, *others):
        assert words in text


@pytest.mark.parametrize("domain", ["indoor", "road"])
def test_distance_words_are_monotone(domain):
    levels = [distance_level(metres, domain) for metres in np.linspace(0.3, 100, 2000)]
    assert levels == sorted(levels)
    assert set(levels) == set(range(7))
    assert len(DISTANCES) == len(SIZE_WORDS) == 7
    # no phrase stands for two distances
    assert sum(len(set(phrases)) for phrases in DISTANCES) == len({phrase for phrases in DISTANCES for phrase in phrases})


def test_metres_in_words():
    rng = np.random.default_rng(0)
    assert metres_in_words(0.6, rng) == "half a metre"
    assert {metres_in_words(7.1, rng).split()[0] for _ in range(40)} == {"seven", "7"}
    assert {metres_in_words(2.5, rng).rsplit(" ", 1)[0] for _ in range(20)} == {"two and a half"}
    assert {metres_in_words(32.0, rng).split()[0] for _ in range(40)} == {"thirty", "30"}


def test_a_scene_with_nothing_in_it_still_has_a_caption():
    empty = Content("indoor", "office", "dim light", {"floor": "grey plain", "wall": "white plain", "ceiling": "white plain"},
                    {"width": 3.0, "length": 4.0, "height": 2.5}, 1.5)  # fmt: skip
    assert all(caption(empty, np.random.default_rng(draw)) for draw in range(100))


def test_clip_reads_whole_captions(contents):
    open_clip = pytest.importorskip("open_clip")
    encode = open_clip.get_tokenizer("RN50").encode
    lengths = [len(encode(caption(content, np.random.default_rng([number, 3])))) for number, content in enumerate(contents)]
    assert max(lengths) <= 55
