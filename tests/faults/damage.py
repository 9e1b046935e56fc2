"""Damaged, mutated and made-up files for every reader: what comes out is what was there, or one line that says why not."""

from __future__ import annotations

import copy
import io
import json
import random
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from depthtokens.errors import DepthTokensError
from depthtokens.files import SEAL, sealed
from faults.process import run
from faults.readers import Reader, digest

MEMORY = 3 << 30
"""Bytes that a reader may claim."""
SECONDS = 30
"""That one file may take."""
CHUNK = 500
"""Files that one process reads at most."""
NASTY = [
    None, True, -1, 0, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), -0.0, "", "x" * 100_000, "\0", "\x1b[31m", "../../x",
    "/etc",    "learned:30000000", "path:2:3000000", "random:1000000000", [], {}, [[]] * 1000, {"a": {}}, "hf-hub:a/b", "😀",
]  # fmt: skip
"""Values that nobody writes by chance."""
ODD = st.sampled_from(NASTY) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
"""Any JSON value."""


def outcome(reader: Reader, path: Path) -> str:
    """What a reader makes of a file: "refused", the digest of what was read, or "FAULT: ..."."""
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return digest(reader.read(path))
    except DepthTokensError as error:
        return f"FAULT: {len(str(error).splitlines())} lines" if "\n" in str(error) else "refused"
    except MemoryError:
        return "FAULT: MemoryError"
    except Exception as error:
        return f"FAULT: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
    finally:
        signal.alarm(0)


Damaged = Iterator[tuple[int, Path, bytes, str | None]]
"""Number, place and content of each damaged file, and the only other thing beside a refusal that reading it may give (None: anything)."""


def watched(reader: Reader, folder: Path, damage: Callable[[], Damaged]) -> tuple[int, list[str]]:
    """Read damaged files in a process of its own, begun anew where one kills it.

    Args:
        reader: whose files.
        folder: where notes are kept.
        damage: gives the damaged files.

    Returns:
        How many were read, and each fault.
    """
    notes, faults, done, first = folder / "notes", [], 0, 0
    while True:
        notes.unlink(missing_ok=True)

        def read(first: int = first) -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            with notes.open("a", buffering=1) as log:
                for number, place, content, expected in damage():
                    if number < first:
                        continue
                    log.write(f"{number}\t")
                    whole = place.read_bytes()
                    try:
                        place.write_bytes(content)
                        found = outcome(reader, place)
                        if expected and found not in (expected, "refused") and not found.startswith("FAULT"):
                            found = "FAULT: read as something else"
                    finally:
                        place.write_bytes(whole)
                    log.write(f"{found}\n")
                log.write("end")

        whole = {path: path.read_bytes() for path in reader.files}
        ended = run(read, folder, memory=MEMORY, limit=SECONDS * CHUNK)
        for path, content in whole.items():
            path.write_bytes(content)
        *lines, last = notes.read_text().split("\n") if notes.is_file() else [""]
        done += len(lines)
        faults += [f"{line.split(chr(9))[0]}: {line.split('FAULT: ')[1]}" for line in lines if "FAULT" in line]
        if last == "end":
            return done, faults
        if not last:
            return done, [*faults, f"could not be read at all: {ended.fault or ended.said[-200:]}"]
        number = int(last.split("\t")[0])
        done += 1
        faults.append(f"{number}: the process ended with {ended.code}")
        first = number + 1


def flips(reader: Reader, count: int, seed: int = 0) -> Damaged:
    """Files of a reader with one flipped bit each, spread evenly over the file; no flip may give other values."""
    rng = random.Random(seed)
    expected = {path: outcome(reader, path) for path in reader.files}
    for number in range(count):
        path = reader.files[number % len(reader.files)]
        content = bytearray(path.read_bytes())
        bit = rng.randrange(len(content) * 8)
        if number % 3 == 0:  # headers are short and matter more
            bit = rng.randrange(min(len(content), 4096) * 8)
        content[bit // 8] ^= 1 << bit % 8
        yield number, path, bytes(content), expected[path]


def mutated(reader: Reader, count: int, seed: int = 0) -> Damaged:
    """Files of a reader with some bytes changed, cut out, doubled or put in; of zip files also what is inside."""
    rng = random.Random(seed)
    whole = {path: [path.read_bytes()] for path in reader.files}
    for path, contents in whole.items():
        if zipfile.is_zipfile(path):
            contents.append(unpacked(path))
    for number in range(count):
        path = reader.files[number % len(reader.files)]
        yield number, path, mutate(rng.choice(whole[path]), rng), None


def mutate(content: bytes, rng: random.Random) -> bytes:
    """A few changes of a file."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not found:
            break
        place = int(len(found) * rng.random() ** rng.choice((1, 4)))  # often near the beginning
        match rng.randrange(7):
            case 0:
                found[place] ^= 1 << rng.randrange(8)
            case 1:
                found[place] = rng.randrange(256)
            case 2:
                found[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x80\0\0\0"))
            case 3:
                del found[place : place + rng.choice((1, 4, 64, 4096))]
            case 4:
                found[place:place] = found[place : place + rng.choice((1, 4, 64, 4096))]
            case 5:
                found[place:place] = rng.randbytes(rng.choice((1, 8, 256)))
            case 6:
                other = rng.randrange(len(found))
                found[place : place + 16] = found[other : other + 16]
    return bytes(found if rng.random() > 0.1 else found[: rng.randrange(len(found) + 1)])


def unpacked(path: Path) -> bytes:
    """A zip file with its entries as they are, so that what is damaged is their content."""
    found = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(found, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return found.getvalue()


def generated(reader: Reader, count: int, seed: int = 0) -> Damaged:
    """JSON of a reader in which values are others, and which is sealed as ours would be: the reader's own checks have to notice."""
    (path,) = reader.files
    whole = json.loads(path.read_text(encoding="utf-8"))
    keep: list[bytes] = []

    @seeded(seed)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, 10**6), st.booleans(), ODD), min_size=1, max_size=3))
    def make(changes: list[tuple[int, bool, object]]) -> None:
        values = json.loads(json.dumps(whole))
        for number, remove, value in changes:
            change(values, number, remove, value)
        if isinstance(values, dict) and SEAL in whole:
            values.pop(SEAL, None)
            values = sealed(values)
        keep.append(json.dumps(values).encode())

    make()
    for number in range(count):
        yield number, path, keep[number % len(keep)], None


def change(values: object, number: int, remove: bool, value: object) -> None:
    """Exchange, or remove, the value at one of the places in a tree of JSON values."""
    places: list[tuple[dict | list, object]] = []

    def walk(node: object) -> None:
        if isinstance(node, dict | list):
            for key in node if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                walk(node[key])

    walk(values)
    if places:
        node, key = places[number % len(places)]
        if remove:
            del node[key]
        else:
            node[key] = copy.deepcopy(value)
