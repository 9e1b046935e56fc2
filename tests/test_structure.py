"""The direction of imports: rooms know what is below them, never what is above."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import depthtokens

ROOT = Path(depthtokens.__file__).parent
ORDER = ["data", "clip", "prompt", "depth", "features", "experiment", "study", "deploy", "cli"]
FILES = sorted(ROOT.rglob("*.py"))


def imported_rooms(path):
    """Rooms of the package that a module imports, at any depth of its code."""
    package = ("depthtokens", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = (*base, *(node.module.split(".") if node.module else ()))
            names = [prefix] if len(prefix) > 1 else [(*prefix, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        for name in names:
            if name[:1] == ("depthtokens",) and len(name) > 1 and name[1] in ORDER:
                yield name[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_upwards_only(path):
    room = path.relative_to(ROOT).parts[0]
    if room not in ORDER:
        return  # the package's own modules: errors and files know no room, __init__ names them all lazily
    allowed = ORDER[: ORDER.index(room) + 1]
    if room == "clip":
        allowed = ["clip"]
    assert not [other for other in imported_rooms(path) if other not in allowed]


def test_every_room_is_known():
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} <= set(ORDER)


def test_modules_say_what_they_are_for():
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        assert not source.strip() or ast.get_docstring(ast.parse(source)), path
