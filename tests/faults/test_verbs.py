"""Commands that are disturbed, a few times each; `make faults` does it often. They give what they give undisturbed, or say why not."""

from __future__ import annotations

import pytest

from faults import crowd, scarce
from faults.kills import killed
from faults.world import VERBS

pytestmark = pytest.mark.slow
KILLS = {"train": 8, "train, features kept": 6, "features": 8, "data scenes": 8, "predict": 6, "evaluate": 4, "reproduce": 5}
"""How often each is killed; others are slow."""
BRISK = [verb for verb in VERBS if verb.name in KILLS and verb.name != "reproduce"]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_killed_at_any_moment(faults, verb):
    """At moments that are spread over the whole command, before a change of the file system or a little after."""
    expected, changes = faults.expected(verb)
    count = KILLS.get(verb.name, 2)
    for i in range(count):
        number, wait = (2 * i + 1) * changes // (2 * count), (0.0, 1e-3)[i % 2]
        assert killed(faults.world, faults.folder / "w", verb, expected, number, wait) is None, f"change {number} + {wait} s"


@pytest.mark.parametrize("verb", BRISK, ids=lambda verb: verb.name)
def test_a_full_disk(faults, verb):
    expected, _ = faults.expected(verb)
    for room in (0, 20_000):
        try:
            assert scarce.full(faults.world, faults.folder / "disk", verb, expected, room) is None, f"{room} bytes left"
        except PermissionError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize("verb", BRISK, ids=lambda verb: verb.name)
def test_no_right_to_write(faults, verb):
    assert scarce.forbidden(faults.world, faults.folder / "w", verb) is None


@pytest.mark.parametrize("verb", BRISK, ids=lambda verb: verb.name)
def test_two_at_once(faults, verb):
    assert crowd.together(faults.world, faults.folder / "w", verb, faults.expected(verb)[0], 2) is None


def test_threads_that_predict_while_tokens_change(faults):
    made, wrong = crowd.changing(faults.world, 2.0, threads=4)
    assert made > 8 and not wrong
