"""Files of torch.save and TorchScript to tensors, without torch's own readers, which run what is in a file or can be made to crash.

Such a file is a pickle and the bytes of its tensors. A pickle is a list of instructions: those are followed that put tensors into tables.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

MOST_PICKLE = 2**23
"""Bytes of a pickle: the largest CLIP's has a tenth of that, and every byte can claim some sixty of memory."""
MOST_TEXT = 2**24
"""Bytes that an archive may unpack to beyond its own size: the text of TorchScript's classes is compressed."""
MOST_MODULES = 20_000
"""Modules of a TorchScript archive."""
_DEEPEST = 50
_MAGIC = (0x1950A86A20F9469CFC6C, 1001)
"""What older files of torch.save begin with: two numbers, each a pickle of its own."""

_STORAGES = {
    "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32, "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8, "CharStorage": torch.int8, "ShortStorage": torch.int16, "IntStorage": torch.int32,
    "LongStorage": torch.int64, "BoolStorage": torch.bool, "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip
_INERT = {
    "collections Counter", "torch Size", "torch device", "torch Tensor", "torch.nn.parameter Parameter", "torch.serialization _get_layout",
    "_codecs encode", "numpy dtype", *(f"numpy.{core}.multiarray scalar" for core in ("core", "_core")),
    *(f"{builtins} {name}" for builtins in ("builtins", "__builtin__") for name in ("bytearray", "set", "complex")),
    *(f"torch.jit._pickle {name}" for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")),
    "torch.jit._pickle restore_type_tag",
}  # fmt: skip
"""What trainers and TorchScript keep beside tensors. It is not made: nothing of it is looked at."""


def read_torch(path: Path) -> tuple[Any, bool]:
    """What a file of torch.save or TorchScript holds: tables, lists, numbers and tensors on the CPU; anything else is None.

    Args:
        path: the file.

    Returns:
        The content, and whether it is a TorchScript archive, whose content is its state dict.

    Raises:
        pickle.UnpicklingError: where the file names code that is not known here.
        Exception: any other, where it is damaged or another file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        return _from_zip(file, size) if file.peek(4)[:4] == b"PK\3\4" else (_from_stream(file, size), False)


def _from_zip(file: BinaryIO, size: int) -> tuple[Any, bool]:
    """The content of an archive, and whether TorchScript wrote it."""
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{len(pickles)} data.pkl in it")
        top, room = pickles[0].removesuffix("data.pkl"), size + MOST_TEXT

        def read(name: str) -> bytes:
            nonlocal room
            info = entries[top + name]
            room -= info.file_size
            if room < 0 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} unpacks to more than the file can hold")
            with archive.open(info) as entry:
                content = entry.read(info.file_size)
            if len(content) != info.file_size:
                raise ValueError(f"{name} is cut off")
            return content

        def storage(key: str, length: int) -> bytearray:
            if entries[f"{top}data/{key}"].file_size != length:
                raise ValueError(f"data/{key} is not as long as its tensors say")
            return bytearray(read(f"data/{key}"))

        if f"{top}byteorder" in entries and read("byteorder") != b"little":
            raise ValueError("its numbers are not in little-endian order")
        if entries[pickles[0]].file_size > MOST_PICKLE:
            raise ValueError("its data.pkl is too long")
        content = _unpickle(io.BytesIO(read("data.pkl")), storage)
        scripted = f"{top}constants.pkl" in entries
        return (_state_dict(content, read) if scripted else content), scripted


def _from_stream(file: BinaryIO, size: int) -> Any:
    """The content of a file as torch.save wrote them before zips: pickles, then for each storage its length and its numbers."""
    storages: dict[str, bytearray] = {}
    room = size

    def storage(key: str, length: int) -> bytearray:
        nonlocal room
        room -= length
        if room < 0:
            raise ValueError("its tensors claim more than the file holds")
        storages[key] = bytearray(length)
        return storages[key]

    if (_unpickle(file), _unpickle(file)) != _MAGIC:
        raise ValueError("not written by torch")
    _unpickle(file)  # of the machine that wrote it
    content = _unpickle(file, storage)
    for key in _unpickle(file):
        if type(key) is not str or size - file.tell() < 8 + len(storages[key]):
            raise ValueError("the bytes of its tensors are cut off")
        file.seek(8, 1)  # the length once more
        found = storages.pop(key)
        found[:] = file.read(len(found))
    if storages:
        raise ValueError("tensors without bytes")
    return content


@dataclass
class _Storage:
    """Numbers of one type, in a row."""

    dtype: torch.dtype
    data: bytearray


@dataclass
class _Object:
    """What stands for an object of a TorchScript class: its attributes, None where it keeps them in a way of its own."""

    kind: str
    attributes: dict[Any, Any] | None = None


def _nowhere(key: str, length: int) -> bytearray:
    raise ValueError("a tensor where none belongs")


def _unpickle(stream: BinaryIO, storage: Callable[[str, int], bytearray] = _nowhere) -> Any:
    """Follow the instructions of one pickle.

    Args:
        stream: stands at its start, and then behind it.
        storage: from a storage's key and length in bytes to its bytes; asked once for a key.

    Returns:
        What the pickle makes.
    """
    stack: list[Any] = []
    outer: list[list[Any]] = []
    memo: dict[int, Any] = {}
    known: dict[str, bytearray] = {}
    end = stream.tell() + MOST_PICKLE
    instructions: Iterator[tuple[pickletools.OpcodeInfo, Any, Any]] = pickletools.genops(stream)
    for opcode, value, position in instructions:
        if position > end:
            raise ValueError("its pickle is too long")
        match opcode.name:
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING":
                stack.append(value)
            case "NONE" | "EMPTY_SET":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[opcode.name]())
            case "MARK":
                outer.append(stack)
                stack = []
            case "TUPLE":
                items, stack = stack, outer.pop()
                stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items, stack = stack, outer.pop()
                stack[-1].extend(items)
            case "SETITEM":
                pair = stack[-2:]
                del stack[-2:]
                _put(stack[-1], pair)
            case "SETITEMS":
                items, stack = stack, outer.pop()
                _put(stack[-1], items)
            case "GLOBAL":
                stack.append(_named(value))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(stack.pop()(*arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], _Object) and type(state) is dict:
                    stack[-1].attributes = state
            case "BINPERSID":
                kind, dtype, key, _, count, *views = stack.pop()
                if kind != "storage" or type(key) is not str or type(count) is not int or count < 0 or any(views):
                    raise ValueError("a storage of an unknown kind")
                length = count * dtype.itemsize
                if key not in known:
                    known[key] = storage(key, length)
                if len(known[key]) != length:
                    raise ValueError("tensors do not agree on the length of their storage")
                stack.append(_Storage(dtype, known[key]))
            case "PROTO" | "STOP":
                pass
            case _:
                raise ValueError(f"{opcode.name} is no instruction of torch's pickles")
    return stack.pop()


def _put(table: Any, items: list[Any]) -> None:
    """Put keys and values, by turns, into a table. A key that is neither text nor a number is of nothing that is looked for."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(table) is dict and type(key) in (str, int):
            table[key] = value


def _named(name: str) -> Any:
    """What stands for a class or function, "module name". Raises UnpicklingError for one that is not known here."""
    module, _, leaf = name.partition(" ")
    if module.split(".")[0] == "__torch__":
        return lambda *_: _Object(f"{module}.{leaf}")
    if module in ("torch", "torch.storage") and leaf in _STORAGES:
        return _STORAGES[leaf]
    if module == "torch" and isinstance(dtype := vars(torch).get(leaf), torch.dtype):
        return dtype
    if name in _INERT:
        return lambda *_: None
    if name not in _MAKERS:
        raise pickle.UnpicklingError(f"it names {module}.{leaf}")
    return _MAKERS[name]


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor in a storage, inside its bounds."""
    dtype = dtype or storage.dtype
    numbers = torch.frombuffer(storage.data, dtype=dtype) if storage.data else torch.empty(0, dtype=dtype)
    if {type(offset), *map(type, size), *map(type, stride)} != {int} or min(offset, *size, *stride, 0) < 0:
        raise ValueError("a tensor of no shape")
    if 0 in size:
        return numbers.new_empty(size)
    if offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) >= len(numbers):
        raise ValueError("a tensor reaches beyond its storage")
    return numbers.as_strided(size, stride, offset)


def _tensor_v2(*parts: Any) -> Tensor:
    if len(parts) > 6 and parts[6]:  # conjugated or negated when it is looked at
        raise ValueError("a tensor of an unknown kind")
    return _tensor(*parts[:4])


def _tensor_v3(*parts: Any) -> Tensor:
    return _tensor(*parts[:4], dtype=parts[6])


def _of_subclass(make: Any, _kind: Any, parts: Any, _state: Any) -> Any:
    if make not in _MAKERS.values():
        raise ValueError("a tensor of an unknown kind")
    return make(*parts)


def _table(items: Any = ()) -> dict[Any, Any]:
    table: dict[Any, Any] = {}
    _put(table, [part for pair in items for part in pair])
    return table


_MAKERS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _table,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor_v2,
    "torch._utils _rebuild_tensor_v3": _tensor_v3,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils _rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._tensor _rebuild_from_type_v2": _of_subclass,
}


def _state_dict(root: Any, read: Callable[[str], bytes]) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript module and its submodules, by name.

    Args:
        root: the module, as `_unpickle` gives it.
        read: from the name of an entry of the archive to its bytes.
    """
    texts: dict[str, str] = {}
    visited = 0

    def declared(kind: str) -> set[str] | None:
        """The names of a class's parameters and buffers, as its text in the archive says; None for a class that is no module."""
        module, _, leaf = kind.rpartition(".")
        if module not in texts:
            texts[module] = read(f"code/{module.replace('.', '/')}.py").decode()
        found = re.search(rf"^class {re.escape(leaf)}\(Module\):\n((?:  __\w+__ = \[[^\]\n]*\]\n)*)", texts[module], re.MULTILINE)
        return None if found is None else set(re.findall(r'"([^"]*)"', found[1]))

    def walk(module: _Object, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        nonlocal visited
        visited += 1
        if visited > MOST_MODULES or depth > _DEEPEST:
            raise ValueError("its modules have no end")
        names = declared(module.kind)
        if names is None:
            return
        if module.attributes is None:
            raise ValueError(f"{module.kind} keeps its tensors in code of its own, which is not run")
        for name, value in module.attributes.items():
            if isinstance(value, _Object):
                yield from walk(value, f"{prefix}{name}.", depth + 1)
            elif isinstance(value, Tensor) and name in names:
                yield f"{prefix}{name}", value

    if not isinstance(root, _Object):
        raise ValueError("no module in it")
    return dict(walk(root, "", 0))
