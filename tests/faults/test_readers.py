"""Damaged and hostile files for every reader, a few of each kind; `make faults` tries a hundred thousand."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kind", "count"), [("bit flipped", 24), ("mutated", 40), ("values exchanged", 20)])
def test_what_comes_out_is_what_was_there_or_refused(faults, kind, count):
    for reader in faults.readers:
        if reader.sealed if kind == "bit flipped" else reader.json or kind == "mutated":
            tries, found = faults.damage(reader, kind, 0, count)
            assert tries == count and not found, (reader.name, found)
