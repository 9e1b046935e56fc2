"""Completion by Tab: every verb, every flag that help lists, and real shells where there are any."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from depthtokens.cli import VERBS
from depthtokens.cli.completion import BEYOND, script, verb_flags
from helpers import refused, run


@pytest.mark.parametrize("verb", VERBS)
def test_flags_are_those_of_help(capsys, verb):
    _, said, _ = run(capsys, *verb.split(), "--help")
    columns = re.findall(r"^[│ ]? ?(-.*?)(?:  |│|$)", said, re.MULTILINE)  # without UTF-8 there are blanks for bars
    listed = {flag for column in columns for flag in re.findall(r"--[a-z][a-z-]+", column)}
    beyond = {"--debug", *BEYOND.get(verb, ())}
    assert listed | beyond == set(verb_flags(verb))
    assert all(flag in said for flag in beyond - {"--debug"})  # which stands in the help of all verbs


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes(tmp_path):
    (tmp_path / "completion.bash").write_text(script("bash"))
    cases = {
        "pre": "predict", "d": "demo data", "data c": "check", "features ch": "check", "data check --q": "--quick",
        "predict --formats np": "npy npz", "predict x.safetensors --fov 60 --overw": "--overwrite", "train --res": "--resume",
        "predict photo": "",
    }  # fmt: skip
    tab = 'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _depthtokens; echo "${COMPREPLY[*]}"'
    asked = "\n".join(f"COMP_WORDS=(depthtokens {line}); {tab}" for line in cases)
    code = f"set -u; source {tmp_path / 'completion.bash'}\n{asked}\ncomplete -p depthtokens"
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True)
    *found, registered = done.stdout.splitlines()
    assert not done.stderr and dict(zip(cases, found, strict=True)) == cases
    assert "-F _depthtokens" in registered and "-o default" in registered  # files, where nothing else fits


def test_zsh_and_fish_get_the_same(capsys):
    code, zsh, _ = run(capsys, "completion", "zsh")
    assert code == 0 and "bashcompinit" in zsh and "_depthtokens()" in zsh
    code, fish, _ = run(capsys, "completion", "fish")
    assert code == 0 and all(line.startswith(("#", "complete -c depthtokens -n ")) for line in fish.splitlines())
    assert "-n '__fish_seen_subcommand_from predict' -l formats -x -a 'png npy" in fish
    assert "did you mean 'zsh'" in refused(capsys, "completion", "tcsh")


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish_completes(tmp_path):
    (tmp_path / "c.fish").write_text(script("fish"))
    (tmp_path / "demo.log").touch()  # no file is meant where a verb is
    cases = {
        "pre": ["predict"], "d": ["data", "demo"], "data c": ["check"], "features ch": ["check"], "data check --q": ["--quick"],
        "predict --formats np": ["npy", "npz"], "predict x.safetensors --fov 60 --overw": ["--overwrite"],
    }  # fmt: skip
    asked = "; ".join(f"complete -C 'depthtokens {line}'; echo ---" for line in cases)
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(["fish", "--no-config", "-c", f"source c.fish; {asked}"], capture_output=True, text=True, cwd=tmp_path, env=home)
    found = [[line.split("\t")[0] for line in part.splitlines()] for part in done.stdout.split("---\n")[:-1]]
    assert not done.stderr and dict(zip(cases, found, strict=True)) == cases


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
@pytest.mark.parametrize(
    ("line", "shown"), [("pre", "depthtokens predict "), ("data check --q", "--quick "), ("predict --formats np", "npz")]
)
def test_zsh_completes(tmp_path, line, shown):
    """A zsh at a terminal, which gets a Tab."""
    (tmp_path / "c.zsh").write_text(script("zsh"))
    process, terminal = pty.fork()
    if not process:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f"], {**os.environ, "TERM": "dumb", "HOME": str(tmp_path)})
    try:
        os.write(terminal, b"autoload -U compinit; compinit -u; source c.zsh; echo rea''dy\n")
        _read_until(terminal, "ready")
        os.write(terminal, f"depthtokens {line}\t".encode())
        _read_until(terminal, shown)
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
        os.close(terminal)


def _read_until(terminal, shown, seconds=60):
    said, end = "", time.monotonic() + seconds
    while shown not in said:
        assert time.monotonic() < end, said
        if select.select([terminal], [], [], 0.1)[0]:
            said += os.read(terminal, 65536).decode(errors="replace")
