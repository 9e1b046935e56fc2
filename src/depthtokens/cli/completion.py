"""The verb `completion`: what a shell needs to complete verbs, flags and their values by Tab."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from ..experiment.config import RECIPES, Experiment
from .console import parse

Flags = dict[str, tuple[str, ...]]
"""A verb's flags, and the values that each takes; none where they cannot be listed."""

BEYOND: dict[str, Flags] = {"train": {"--config": (), "--resume": (), "--recipe": tuple(RECIPES), "--json": (), "--force": ()}}
"""Flags of verbs that are not fields of their dataclass."""

BASH = """\
# Completion of depthtokens by Tab in {shell}. Put it where it is read when a shell starts:
#   {place}
_depthtokens() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb=${{COMP_WORDS[1]}} found=""
    case "$verb ${{COMP_WORDS[2]-}}" in {pairs}) [ "$COMP_CWORD" -gt 2 ] && verb="$verb ${{COMP_WORDS[2]}}" ;; esac
    if [ "$COMP_CWORD" -eq 1 ]; then
        found="{first}"
    else
        case "$verb $before" in
{values}
        esac
        if [ -z "$found" ]; then
            case "$COMP_CWORD $verb" in
{seconds}
            esac
            case "$word" in -*)
                case "$verb" in
{flags}
                esac ;;
            esac
        fi
    fi
    COMPREPLY=($(compgen -W "$found" -- "$word"))
}}
complete -o default -F _depthtokens depthtokens
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
"""zsh reads bash's completions by this function of its own."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print what completes verbs, flags and their values by Tab; it says at its top where to put it."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """Which shell."""


def main(arguments: Sequence[str]) -> None:
    """Parse, print."""
    args = parse(Completion, "completion", arguments)
    print(script(args.shell), end="")


def script(shell: str) -> str:
    """What a shell reads.

    Args:
        shell: bash, zsh or fish.
    """
    from . import VERBS

    known = {verb: verb_flags(verb) for verb in VERBS}
    if shell == "fish":
        return "\n".join(_fish(known)) + "\n"
    place = {"bash": "depthtokens completion bash >> ~/.bashrc", "zsh": "depthtokens completion zsh >> ~/.zshrc   # behind compinit"}[shell]
    firsts = dict.fromkeys(verb.split()[0] for verb in known)
    seconds = {first: [verb.split()[1] for verb in known if verb.startswith(f"{first} ")] for first in firsts}
    text = BASH.format(
        shell=shell,
        place=place,
        first=" ".join([*firsts, "--help", "--version"]),
        pairs="|".join(f'"{verb}"' for verb in known if " " in verb),
        seconds="\n".join(f'                "2 {first}") found="{" ".join(words)}" ;;' for first, words in seconds.items() if words),
        flags="\n".join(f'                    "{verb}") found="{" ".join(flags)}" ;;' for verb, flags in known.items()),
        values="\n".join(
            f'            "{verb} {flag}") found="{" ".join(values)}" ;;'
            for verb, flags in known.items() for flag, values in flags.items() if values
        ),
    )  # fmt: skip
    return (ZSH if shell == "zsh" else "") + text


def verb_flags(verb: str) -> Flags:
    """The flags of a verb, with the values that they take where these can be listed."""
    from . import VERBS

    module = importlib.import_module(f".{VERBS[verb][0]}", __package__)
    found: Flags = {"--help": (), "--debug": ()} | BEYOND.get(verb, {})
    return found | dict(_flags(_dataclass(module)))


def _dataclass(module: ModuleType) -> type:
    """The dataclass that a verb's module makes of its arguments: its own, or, of `train`, the experiment."""
    own = [value for value in vars(module).values() if is_dataclass(value) and value.__module__ == module.__name__]
    return next((value for value in own if isinstance(value, type)), Experiment)


def _flags(kind: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Flags of a dataclass and of those within it, as tyro makes them."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from _flags(hint)
        elif not (get_origin(hint) is Annotated and tyro.conf.Positional in hint.__metadata__):
            flag = field.name.replace("_", "-")
            yield f"--{flag}", tuple(_choices(hint))
            if hint is bool:
                yield f"--no-{flag}", ()


def _choices(hint: Any) -> Iterator[str]:
    """The values that a type of literals lists, at any depth of it."""
    if get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    else:
        for part in get_args(hint):
            yield from _choices(part)


def _fish(known: dict[str, Flags]) -> Iterator[str]:
    """The lines that fish reads: verbs with what they do, then each one's flags."""
    from . import VERBS

    yield "# Completion of depthtokens by Tab in fish:"
    yield "#   depthtokens completion fish > ~/.config/fish/completions/depthtokens.fish"
    for verb, (_, text) in VERBS.items():
        first, _, second = verb.partition(" ")
        if second:
            alone = "" if first in VERBS else "-f "  # no file is meant
            yield f"complete -c depthtokens -n '__fish_seen_subcommand_from {first}' {alone}-a {second} -d {shlex.quote(text)}"
        else:
            yield f"complete -c depthtokens -n __fish_use_subcommand -f -a {first} -d {shlex.quote(text)}"
    for first in dict.fromkeys(verb.split()[0] for verb in known if verb.split()[0] not in known):
        yield f"complete -c depthtokens -n __fish_use_subcommand -f -a {first}"
    for verb, flags in known.items():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in verb.split())
        for flag, values in flags.items():
            listed = f" -x -a {shlex.quote(' '.join(values))}" if values else ""
            yield f"complete -c depthtokens -n '{seen}' -l {flag.removeprefix('--')}{listed}"
