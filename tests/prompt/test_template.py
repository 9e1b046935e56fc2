"""Templates: the paper's, one's own, and those that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from depthtokens import UsageError
from depthtokens.prompt.template import TEMPLATES, parse_template


@pytest.mark.parametrize(("name", "contexts", "pieces"), [
    ("baseline", 0, ("This object appears to be", None)),
    ("depthclip", 0, ("This object is", None)),
    ("1o1d", 2, (0, "object", 1, None)),
    ("1o2d", 3, (0, "object", 1, 2, None)),
    ("4o4d", 8, (0, 1, 2, 3, "object", 4, 5, 6, 7, None)),
])  # fmt: skip
def test_the_paper_s_templates(name, contexts, pieces):
    template = parse_template(name)
    assert (template.contexts, template.pieces) == (contexts, pieces)
    assert parse_template(TEMPLATES[name]) == template


def test_own_templates():
    assert parse_template("a {depth} {ctx*2} thing.").pieces == ("a", None, 0, 1, "thing.")
    assert parse_template("{ctx}{ctx} {depth}") == parse_template("{ctx}{ctx} {depth}")
    assert parse_template("{ctx*2}{depth}").pieces == (0, 1, None)
    assert parse_template("a {depth} b").fill(["very", 3]) == ["a", "very", 3, "b"]


@pytest.mark.parametrize(("text", "message"), [
    ("baselin", "did you mean 'baseline'"),
    ("This object is near", "has no {depth}"),
    ("{ctx} object", "exactly once, it has it 0 times"),
    ("{depth} and {depth}", "2 times"),
    ("a {word} {depth}", "unknown slot {word}"),
    ("{ctx*0} {depth}", "unknown slot"),
    ("{ctx*100} {depth}", "unknown slot"),
    ("{ctx*99999999999} {depth}", "unknown slot"),
    ("a {depth} b}", "a brace without its other half in 'b}'"),
    ("{ctx", "a brace without its other half in '{ctx'"),
    ("}{depth}", "a brace without its other half"),
    ("{{depth}}", "a brace without its other half"),
    ("{ctx {depth}", "a brace without its other half in '{ctx'"),
    (None, "a template is text"),
    (5, "a template is text"),
])  # fmt: skip
def test_bad_templates(text, message):
    with pytest.raises(UsageError) as caught:
        parse_template(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_numpy_s_text_is_text():
    assert parse_template(np.str_("a {depth}")) == parse_template("a {depth}")
