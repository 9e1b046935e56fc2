"""Files of torch.save and TorchScript are data: the tensors that torch reads from them, and nothing of what they would do."""

from __future__ import annotations

import io
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from depthtokens.clip import torchfile
from depthtokens.clip.torchfile import read_torch
from depthtokens.clip.weights import read_weights
from depthtokens.errors import WeightsError

TOP = pickle.PROTO + b"\x02"


class Parts(torch.nn.Module):
    """Tensors of every kind that a module keeps, and some that are no part of its state dict."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lin = torch.nn.Linear(3, 3).half()
        self.norm = torch.nn.BatchNorm2d(4)
        self.conv = torch.nn.Conv2d(1, 2, 3)
        self.shared = self.lin.weight
        self.again = self.norm
        self.inner = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.ReLU())
        self.register_buffer("turned", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("part", self.turned[1:, ::2])
        self.register_buffer("expanded", torch.ones(1, 4).expand(2, 4))
        self.register_buffer("number", torch.tensor(5))
        self.register_buffer("brain", torch.randn(2).bfloat16())
        self.register_buffer("switch", torch.tensor([True, False]))
        self.register_buffer("empty", torch.ones(0, 3))
        self.register_buffer("unsaved", torch.randn(2), persistent=False)
        self.register_parameter("none", None)
        self.plain, self.several, self.count = torch.ones(2), (torch.zeros(3), 4), 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x.half())


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape and torch.equal(found[name], value), name


@pytest.mark.parametrize("make", [torch.jit.script, lambda module: torch.jit.trace(module, torch.ones(1, 3))], ids=["script", "trace"])
def test_torchscript_gives_what_torch_gave(tmp_path, make):
    make(Parts().eval()).save(tmp_path / "a.pt")
    found, scripted = read_torch(tmp_path / "a.pt")
    assert scripted
    same(found, torch.jit.load(tmp_path / "a.pt").state_dict())
    assert found["shared"].data_ptr() == found["lin.weight"].data_ptr()
    assert found["turned"].untyped_storage().data_ptr() == found["part"].untyped_storage().data_ptr()


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_save_gives_what_torch_gave(tmp_path, zipped):
    state = Parts().state_dict()
    state["parameter"], state["whole"] = torch.nn.Parameter(torch.randn(2, 2)), torch.arange(3).to(torch.uint16)
    state["parameter"].note = "kept with it"
    optimizer = torch.optim.AdamW([state["parameter"]], lr=np.float64(0.1))
    state["parameter"].sum().backward()
    optimizer.step()
    content = {
        "state_dict": state, "optimizer": optimizer.state_dict(), "lists": [1, -70000, 2**40, 0.5, None, True, (1, 2, 3, 4)],
        "beside": {"size": torch.Size([1]), "dtype": torch.float16, "device": torch.device("cpu"), "number": np.float32(2), "set": {1}},
    }  # fmt: skip
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    found, scripted = read_torch(tmp_path / "a.pt")
    assert not scripted and found["lists"] == content["lists"]
    with torch.no_grad():
        same(found["state_dict"], state)
        same(found["optimizer"]["state"][0], optimizer.state_dict()["state"][0])


class Moody(torch.nn.Module):
    """A module that wants to do something when it is loaded."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self):
        return (self.weight, self.training)


class Writes(Moody):
    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        torch.save(state[0], "written.pt")
        self.weight, self.training = state


class Reads(Moody):
    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight, self.training = torch.from_file("/etc/hostname", False, 4), state[1]


class Loops(Moody):
    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight, self.training = state
        while True:
            self.weight = self.weight + 1


@pytest.mark.parametrize("kind", [Writes, Reads, Loops])
def test_torchscript_is_not_run(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(kind()).save("a.pt")
    before = set(tmp_path.iterdir())
    with pytest.raises(WeightsError, match=f"{kind.__name__} keeps its tensors in code of its own, which is not run"):
        read_weights(tmp_path / "a.pt")
    assert set(tmp_path.iterdir()) == before


def archive(path, data, entries=(), top="a"):
    """A zip as torch.save writes them, of a pickle and other entries."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{top}/data.pkl", data)
        for name, content in dict(entries).items():
            file.writestr(f"{top}/{name}", content)
    return path


def tensor(key=b"0", count=4, offset=0, size=(4,), stride=(1,), kind=b"FloatStorage"):
    """A tensor as a pickle has it."""

    def number(value):
        return pickle.LONG1 + b"\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values):
        return pickle.MARK + b"".join(map(number, values)) + pickle.TUPLE

    def text(value):
        return pickle.BINUNICODE + struct.pack("<I", len(value)) + value

    storage = pickle.MARK + text(b"storage") + b"ctorch\n" + kind + b"\n" + text(key) + text(b"cpu") + number(count) + pickle.TUPLE
    parts = storage + pickle.BINPERSID + number(offset) + numbers(size) + numbers(stride) + pickle.NEWFALSE + pickle.NONE
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + parts + pickle.TUPLE + pickle.REDUCE


def table(value, key=b"X\1\0\0\0w"):
    return TOP + b"}" + key + value + b"s."


FOUR = {"data/0": np.arange(4, dtype=np.float32).tobytes()}


def test_tensors_are_made_by_hand_as_torch_makes_them(tmp_path):
    path = archive(tmp_path / "a.pt", table(tensor(size=(2, 2), stride=(1, 2))), FOUR | {"version": "3"})
    assert read_torch(path)[0]["w"].tolist() == torch.load(path, weights_only=True)["w"].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(("value", "message"), [
    (b"cos\nsystem\nX\4\0\0\0exit\x85R", r"it names os.system\); its code was not executed"),
    (b"c__builtin__\neval\nX\1\0\0\0" + b"1\x85R", "it names __builtin__.eval"),
    (b"cnumpy._core.multiarray\n_reconstruct\n)R", "not executed"),
    (b"ctorch\nload\nX\1\0\0\0a\x85R", "it names torch.load"),
    (b"cbuiltins\nbytearray\n\x8a\6\0\0\0\0\0\1\x85R", "no state dict"),  # a terabyte
    (tensor(count=5), "data/0 is not as long"), (tensor(count=2**60), "not as long"), (tensor(count=-1), "unknown kind"),
    (tensor(kind=b"DoubleStorage"), "not as long"), (tensor(kind=b"Tensor"), "truncated"), (tensor(key=b"1"), "truncated"),
    (tensor(key=b"../data.pkl"), "truncated"), (tensor(size=(5,)), "beyond its storage"), (tensor(offset=1), "beyond its storage"),
    (tensor(offset=-1), "no shape"), (tensor(stride=(-1,)), "no shape"), (tensor(stride=(2**60,)), "beyond its storage"),
    (tensor(stride=(1, 1)), "truncated"), (tensor(size=(2**40,), stride=(0,)), "tensors take .* far more than the file"),
    (tensor(size=(2**40, 2**40), stride=(0, 0)), "truncated|far more than the file"),
    (tensor(size=(0, 2**40), stride=(1, 1)), "far more than the file"),
    (b"\x80\4\x95\0\0\0\0\0\0\0\1N", "FRAME is no instruction"), (b"h\7", "truncated"), (b"R", "truncated"), (b"t", "truncated"),
])  # fmt: skip
def test_hostile_pickles(tmp_path, value, message):
    path = archive(tmp_path / "a.pt", table(value), FOUR)
    tracemalloc.start()
    with pytest.raises(WeightsError, match=message) as caught:
        read_weights(path)
    assert tracemalloc.get_traced_memory()[1] < 2**23 and "\n" not in str(caught.value)
    tracemalloc.stop()


@pytest.mark.parametrize("deep", [
    TOP + b"}" + b")" + b"\x85" * 200_000 + b"K\1s.",  # as a key: torch's own reader crashes in its hash
    TOP + b"]" * 200_000 + b"a" * 199_999 + b".",
    TOP + b"(" * 200_000 + b"t" * 200_000 + b".",
    TOP + b"]q\0h\0a.",  # a list in itself
    TOP + b"}q\0X\5\0\0\0modelh\0s.",  # a table in itself
    TOP + b"Nr\xff\xff\xff\xff.",  # a memo of four billion places
], ids=["key", "list", "tuple", "round", "table", "memo"])  # fmt: skip
def test_nested_and_circular_pickles(tmp_path, deep):
    with pytest.raises(WeightsError, match="no state dict|truncated"):
        read_weights(archive(tmp_path / "a.pt", deep))


def module(attributes, kind=b"__torch__\nM"):
    """A TorchScript object as a pickle has it."""
    return b"c" + kind + b"\n)\x81}(" + attributes + b"ub"


SCRIPT = {"constants.pkl": b"\x80\2).", "code/__torch__.py": 'class M(Module):\n  __parameters__ = ["w", ]\n  __buffers__ = []\n'}


def name(text):
    return pickle.BINUNICODE + struct.pack("<I", len(text)) + text


def test_modules_without_end(tmp_path):
    within = b"c__torch__\nM\n)\x81q\0}(" + name(b"x") + b"h\0ub"  # itself
    doubled, nested = module(b""), module(b"")
    for _ in range(30):  # a billion names
        doubled = module(name(b"a") + doubled + b"q\1" + name(b"b") + b"h\1")
    for _ in range(3000):
        nested = module(name(b"a") + nested)
    for content in (within, doubled, nested):
        with pytest.raises(WeightsError, match="modules have no end"):
            read_weights(archive(tmp_path / "a.pt", TOP + content + b".", SCRIPT))


def test_archives_that_unpack_to_more_than_they_are(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", table(tensor(count=2**24, size=(2**24,))))
        file.writestr("a/data/0", bytes(2**26))
    with pytest.raises(WeightsError, match="data/0 unpacks to more than the file can hold"):
        read_weights(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a/data.pkl", b"N" * 10**6)
    with pytest.raises(WeightsError, match="unpacks to more"):
        read_weights(tmp_path / "b.pt")
    with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", b"}" * (torchfile.MOST_PICKLE + 1))
    with pytest.raises(WeightsError, match=r"data.pkl is too long"):
        read_weights(tmp_path / "c.pt")
    with pytest.raises(WeightsError, match=r"2 data.pkl in it"):
        with zipfile.ZipFile(tmp_path / "d.pt", "w") as file:
            file.writestr("a/data.pkl", b"N.")
            file.writestr("b/data.pkl", b"N.")
        read_weights(tmp_path / "d.pt")


def test_the_older_files_of_torch(tmp_path):
    """Pickles in a row, then the bytes of tensors: what they say of their lengths is not believed."""
    buffer = io.BytesIO()
    torch.save(OrderedDict(w=torch.arange(4.0)), buffer, _use_new_zipfile_serialization=False)
    whole = buffer.getvalue()
    path = tmp_path / "a.pt"
    for content in (whole[:-1], whole[:100], whole[:-20], b"", b"\x80\2.", whole[:20] + b"." * 5,
                    whole.replace(b"K\4N", b"J\xff\xff\xff\x7fN")):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="truncated or not a weights file"):
            read_weights(path)
    path.write_bytes(whole)
    assert read_weights(path).tensors["w"].tolist() == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore")
def test_mutated_files(tmp_path):
    """Whatever a byte becomes, what comes out is a state dict or one line."""
    torch.manual_seed(0)
    state, module = {"a.w": torch.randn(4), "b": torch.arange(3)}, torch.jit.script(Parts())
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    module.save(tmp_path / "script.pt")
    draw = random.Random(0)
    for name in ("zip.pt", "old.pt", "script.pt"):
        whole, target = (tmp_path / name).read_bytes(), tmp_path / f"m_{name}"
        for _ in range(300):
            content = bytearray(whole)
            for _ in range(draw.choice([1, 1, 4])):
                content[draw.randrange(len(content))] = draw.choice([0, 255, draw.randrange(256)])
            target.write_bytes(content)
            try:
                read_weights(target)
            except WeightsError as error:
                assert "\n" not in str(error)
