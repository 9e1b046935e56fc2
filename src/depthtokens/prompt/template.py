"""The sentence around the depth word: text with {depth} and, if wanted, learned context slots {ctx}."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError, unknown
from .scales import Token

Segment = str | Token | int
"""A stretch of a prompt: text, one vocabulary entry, or the index of an inserted vector."""

TEMPLATES = {
    "baseline": "This object appears to be {depth}",
    "1o1d": "{ctx} object {ctx} {depth}",
    "1o2d": "{ctx} object {ctx} {ctx} {depth}",
    "4o4d": "{ctx*4} object {ctx*4} {depth}",
    "depthclip": "This object is {depth}",
}
"""The paper's templates by its names, without the final full stop it prints and the released code leaves out."""

_SLOT = re.compile(r"\{([^{}]*)\}")
_CONTEXT = re.compile(r"ctx(?:\*([1-9][0-9]?))?")  # 99 are more than any text tower has positions for


@dataclass(frozen=True)
class Template:
    """A template, read.

    Attributes:
        text: as it was written, with its slots.
        pieces: in reading order: text, None for {depth}, or the index of a context slot.
        contexts: number of context slots.
    """

    text: str
    pieces: tuple[str | int | None, ...]
    contexts: int

    def fill(self, depth: Sequence[Segment]) -> list[Segment]:
        """The prompt with the segments of `depth` in the place of {depth}; context slots stay as their indices."""
        prompt: list[Segment] = []
        for piece in self.pieces:
            prompt.extend(depth if piece is None else [piece])
        return prompt


def parse_template(template: str) -> Template:
    """Read a template.

    Args:
        template: a name in `TEMPLATES`, or text with exactly one {depth} and any number of {ctx} ({ctx*4} stands for four).

    Raises:
        UsageError: for an unknown name, an unknown slot, a brace without its other half, or no or several {depth}.
    """
    if not isinstance(template, str):
        raise UsageError(f"a template is text with {{depth}} in it, or a name, not {template!r}")
    template = str(template)
    if "{" not in template:
        if template not in TEMPLATES and " " in template.strip():
            raise UsageError(f"the template '{template}' has no {{depth}}: write it where the depth word goes")
        if template not in TEMPLATES:
            raise unknown("template", template, TEMPLATES)
    text = TEMPLATES.get(template, template)
    pieces: list[str | int | None] = []
    contexts = at = 0
    for slot in _SLOT.finditer(text):
        pieces.append(text[at : slot.start()].strip())
        at = slot.end()
        context = _CONTEXT.fullmatch(slot[1])
        if slot[1] == "depth":
            pieces.append(None)
        elif context:
            count = int(context[1] or 1)
            pieces.extend(range(contexts, contexts + count))
            contexts += count
        else:
            raise UsageError(f"unknown slot {slot[0]} in the template: slots are {{depth}}, {{ctx}} and {{ctx*4}}")
    pieces.append(text[at:].strip())
    loose = [piece for piece in pieces if isinstance(piece, str) and ("{" in piece or "}" in piece)]
    if loose:
        raise UsageError(f"a brace without its other half in '{loose[0]}': slots of a template are {{depth}}, {{ctx}} and {{ctx*4}}")
    if pieces.count(None) != 1:
        raise UsageError(f"the template '{text}' needs {{depth}} exactly once, it has it {pieces.count(None)} times")
    return Template(text, tuple(piece for piece in pieces if piece != ""), contexts)
