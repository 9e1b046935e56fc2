"""What repositories of the hub are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError, cut, printable

PREFIX = "hf:"
REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"


@dataclass(frozen=True)
class HubName:
    """What a repository of the hub is called.

    Attributes:
        repo: "USER/NAME".
        revision: a branch, a tag or a commit; None for the main branch.
    """

    repo: str
    revision: str | None = None

    @staticmethod
    def read(text: str | Path, revision: str | None = None) -> HubName:
        """A name as a person writes it: USER/NAME[@REVISION], with or without "hf:" before it.

        Args:
            text: the name.
            revision: the same as behind the @.

        Raises:
            UsageError: for anything else.
        """
        text = text.as_posix() if isinstance(text, Path) else text
        repo, at, behind = text.removeprefix(PREFIX).partition("@")
        if not re.fullmatch(REPO, repo, re.ASCII):
            raise UsageError(f"'{short(text)}' is no name of the hub: it is USER/NAME, or USER/NAME@REVISION")
        if at and revision is not None and behind != revision:
            raise UsageError(f"two revisions: '{short(behind)}' in the name, and '{short(revision)}'")
        found = behind if at else revision
        if found is not None and (not re.fullmatch(r"[A-Za-z0-9][\w./-]*", found, re.ASCII) or ".." in found):
            raise UsageError(f"'{short(found)}' is no revision: it is a branch, a tag or a commit")
        return HubName(repo, found)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def short(text: str) -> str:
    """Text of a person for an error."""
    return cut(printable(text), 80)
