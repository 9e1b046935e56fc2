"""The direction of imports: rooms know what is below them, never what is above, and no two modules need each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import depthtokens

ROOT = Path(depthtokens.__file__).parent
GROUND = ["errors", "files", "partial", "places", "progress", "schema", "spread", "summary", "_version"]
ORDER = [
    "data", "clip", "prompt", "features", "depth", "experiment", "report", "reproduce", "study", "scenes", "demo", "deploy", "cli",
]  # fmt: skip
ONLY = {"clip": ["data"], "data": [], "scenes": ["data"], "features": ["data", "clip"]}
"""Rooms that know fewer others than stand below them."""
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path):
    """A module's name below the package, as parts; a package is named by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path): path for path in FILES}


def imported(path):
    """Modules of the package that a module imports, at any depth of its code; what only type checkers see counts as well."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if not node.level and (node.module or "").split(".")[0] != "depthtokens":
                continue
            base = package[: len(package) - node.level + 1] if node.level else ()
            words = (node.module or "").split(".") if node.module else []
            base = (*base, *(words if node.level else words[1:]))
            for alias in node.names:
                whole = (*base, alias.name)
                yield whole if whole in MODULES else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "depthtokens":
                    yield tuple(alias.name.split(".")[1:])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_upwards_only(path):
    name = module_of(path)
    if not name or name == ("__main__",):
        return  # the public names, imported lazily
    room = name[0]
    allowed = GROUND if room in GROUND else [*GROUND, room, *ONLY.get(room, ORDER[: ORDER.index(room)])]
    assert not [other for other in imported(path) if not other or other[0] not in allowed]


def test_no_two_modules_need_each_other():
    needs = {name: {other for other in imported(path) if other != name} for name, path in MODULES.items() if name}
    done, under_way = set(), []

    def visit(name):
        if name in under_way:
            raise AssertionError(" -> ".join(".".join(part) for part in [*under_way[under_way.index(name) :], name]))
        if name in done:
            return
        under_way.append(name)
        for other in sorted(needs.get(name, ())):
            visit(other)
        under_way.pop()
        done.add(name)

    for name in needs:
        visit(name)
    assert done >= needs.keys()


def test_every_room_is_known():
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} <= set(ORDER)
    assert {path.stem for path in ROOT.glob("*.py")} <= {*GROUND, "__init__", "__main__"}


WRITERS = {
    "files.py", "partial.py",
    "scenes/store.py", "scenes/write.py",  # fill a folder of `atomic_folder`
    "experiment/train.py", "deploy/log.py",  # add lines to a log
    "data/loader.py",  # passes batches on by temporary files
}  # fmt: skip
"""Modules that write files themselves; all others have `files.atomic` do it, so that every file is whole or not there."""
OPENED = {"file", "buffer"}
"""What others than we write to: what `atomic` opened, or memory."""


def writes(call):
    """Whether a call writes to a file system by itself, going by its names."""
    if not isinstance(call.func, ast.Attribute):
        return isinstance(call.func, ast.Name) and call.func.id == "open"
    name, modes = call.func.attr, [a.value for a in [*call.args, *(k.value for k in call.keywords)] if isinstance(a, ast.Constant)]
    if name in {"write_text", "write_bytes", "savefig", "tofile", "open_memmap", "save_file", "touch"}:
        return True
    given = bool(call.args) and isinstance(call.args[0], ast.Name) and call.args[0].id in OPENED
    if name == "open":
        return not given and any(isinstance(mode, str) and len(mode) <= 3 and set(mode) & set("wax+") for mode in modes)
    if name in {"save", "savez", "savez_compressed"}:  # of arrays, tensors, images; our own models and depth maps save themselves
        library = not isinstance(call.func.value, ast.Name) or call.func.value.id in {"np", "torch", "image"}
        return library and not given
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_are_written_whole(path):
    if path.relative_to(ROOT).as_posix() in WRITERS:
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    found = [ast.unparse(call) for call in calls if writes(call)]
    assert [line for line in found if not line.startswith(("self.model.save(", "run.model.save("))] == []


@pytest.mark.parametrize(
    "line",
    [
        "Path(p).write_text(t)", "open(p)", "p.open('wb')", "p.open(mode='a')", "np.save(p, a)", "np.savez(p, depth=a)",
        "figure.savefig(p)",
        "Image.fromarray(a).save(p)", "np.lib.format.open_memmap(p, 'w+')", "torch.save(m, p)",
    ],
)  # fmt: skip
def test_what_writes_is_known(line):
    assert any(isinstance(node, ast.Call) and writes(node) for node in ast.walk(ast.parse(line)))


def test_modules_say_what_they_are_for():
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        assert not source.strip() or ast.get_docstring(ast.parse(source)), path
