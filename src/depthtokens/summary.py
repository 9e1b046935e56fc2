"""How an object shows itself, at a prompt and in a notebook: a title, a small table, perhaps a picture."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .errors import cut, printable

LONGEST = 100
"""Characters of the longest cell: a summary fits on a screen."""
_PAGE = """<div><p><b>{{ summary.title }}</b></p>
{% if picture %}<img src="data:image/png;base64,{{ picture }}" style="max-width: 480px" alt="">{% endif %}
<table>
{% if summary.heads %}<tr>{% for head in summary.heads %}<th>{{ head }}</th>{% endfor %}</tr>{% endif %}
{% for row in summary.cells() %}<tr>{% for cell in row %}<td style="text-align: left">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>"""


@dataclass(frozen=True)
class Summary:
    """What an object says of itself.

    Attributes:
        title: what it is.
        rows: of a table; the first column says what the others are.
        heads: of its columns, empty for none.
        picture: makes a PNG file, which notebooks show; None for none.
    """

    title: str
    rows: Sequence[Sequence[object]]
    heads: Sequence[str] = ()
    picture: Callable[[], bytes] | None = None

    def cells(self) -> list[list[str]]:
        """The rows as text that a terminal may be shown."""
        return [[cut(printable(" ".join(str(cell).split())), LONGEST) for cell in row] for row in self.rows]

    def text(self) -> str:
        """For a terminal."""
        lines = [list(self.heads), *self.cells()] if self.heads else self.cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n  ".join([cut(printable(self.title), LONGEST), *table])

    def html(self) -> str:
        """For a notebook."""
        from jinja2 import Environment

        picture = base64.b64encode(self.picture()).decode() if self.picture else None
        return Environment(autoescape=True).from_string(_PAGE).render(summary=self, picture=picture)


class Summarised:
    """An object that shows itself as its summary."""

    def summary(self) -> Summary:
        """What it says of itself."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.summary().text()

    def _repr_html_(self) -> str:
        return self.summary().html()
