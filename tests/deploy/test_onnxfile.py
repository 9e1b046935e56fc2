"""ONNX files without an engine: those that name other files are not opened, and a changed graph has another checksum."""

from __future__ import annotations

import random

import numpy as np
import pytest

from depthtokens import WeightsError
from depthtokens.deploy.onnxfile import graph_sha256, has_external_data, has_float16
from depthtokens.deploy.runtime import OnnxDepth, open_session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper = onnx.helper


def value(name):
    return helper.make_tensor_value_info(name, 1, [4])


def outside(location="secret.bin"):
    """A tensor in another file."""
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(nodes, initializers=(), **parts):
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, **parts)


ADD = helper.make_node("Add", ["x", "w"], ["y"])


def branch(node, *initializers):
    return helper.make_graph([node], "inner", [], [value("z")], list(initializers))


def constant(tensor, output="w"):
    return helper.make_node("Constant", [], [output], value=tensor)


def places():
    """A model for every place in which a tensor can be."""
    plain = onnx.numpy_helper.from_array(np.ones(4, np.float32), "z")
    yield model([ADD], [outside()])
    yield model([constant(outside()), ADD])
    inner = branch(helper.make_node("Identity", ["w"], ["z"]), outside())
    other = branch(constant(plain, "z"))
    yield model([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)])
    yield model([helper.make_node("If", ["c"], ["y"], then_branch=other, else_branch=branch(constant(outside(), "z")))])
    sparse = model([ADD])
    sparse.graph.sparse_initializer.add(values=outside(), dims=[4])
    yield sparse
    listed = helper.make_node("Custom", ["x"], ["y"])
    listed.attribute.add(name="all", type=onnx.AttributeProto.TENSORS).tensors.append(outside())
    yield model([listed])
    function = helper.make_function("own", "F", ["x"], ["y"], [constant(outside()), ADD], [helper.make_opsetid("", 18)])
    yield model([ADD], functions=[function])
    trained = model([ADD])
    trained.training_info.add().algorithm.initializer.append(outside())
    yield trained


@pytest.mark.parametrize("index", range(8))
def test_files_beside_the_file_are_not_opened(tmp_path, monkeypatch, index):
    monkeypatch.chdir(tmp_path)
    np.arange(4, dtype=np.float32).tofile("secret.bin")
    content = list(places())[index].SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"m.onnx names other files for its weights, and those are not opened"):
        OnnxDepth(tmp_path / "m.onnx")


def test_long_numbers_of_fields_are_seen_through():
    """Protobuf keeps 32 bits of a field's number: the same field can be written with more."""
    hidden = b"\xf2\x80\x80\x80\x10"  # field 14, length-delimited, with a bit too many
    tensor = hidden[:1] + hidden[1:] + b"\1x"
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    assert has_external_data(b"\x3a" + bytes([len(graph)]) + graph)


def test_files_of_their_own_are_whole():
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.data_location = onnx.TensorProto.DEFAULT
    content = model([ADD], [tensor], producer_name="external_data").SerializeToString()
    assert not has_external_data(content)
    assert open_session(content).run(None, {"x": np.zeros(4, np.float32)})[0].tolist() == [1] * 4


def test_operators_that_onnxruntime_does_not_have(tmp_path):
    """No library of a file's own is loaded."""
    onnx.save(model([helper.make_node("Run", ["x"], ["y"], domain="evil")]), tmp_path / "m.onnx")
    with pytest.raises(WeightsError, match="damaged or not an ONNX file"):
        OnnxDepth(tmp_path / "m.onnx")


def test_mutated_files_do_not_get_past(tmp_path):
    """What is not seen here as a name of a file, onnx does not see as one either."""
    whole, draw, path = model([ADD], [outside()]).SerializeToString(), random.Random(0), tmp_path / "m.onnx"
    for _ in range(2000):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 1, 3])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        try:
            found = has_external_data(bytes(content))
        except ValueError:
            continue
        try:
            proto = onnx.load_from_string(bytes(content))
        except Exception:
            continue
        assert found or not any(tensor.external_data or tensor.data_location for tensor in proto.graph.initializer)
    path.write_bytes(whole[:-3])
    with pytest.raises(WeightsError, match="damaged or not an ONNX file") as caught:
        OnnxDepth(path)
    assert "\n" not in str(caught.value)


def test_checksum_of_all_but_the_metadata():
    proto = model([ADD], [helper.make_tensor("w", 1, [4], [1.0, 2.0, 3.0, 4.0])])
    content = proto.SerializeToString()
    expected = graph_sha256(content)
    proto.metadata_props.add(key="a", value="b")
    assert graph_sha256(proto.SerializeToString()) == expected
    for bit in range(8 * len(content)):
        broken = bytearray(content)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            assert graph_sha256(bytes(broken)) != expected
        except ValueError:
            continue


def test_float16_is_seen_wherever_it_is():
    for type_, half in ((np.float32, False), (np.float16, True)):
        weight = onnx.numpy_helper.from_array(np.ones(4, type_), "w")
        within = helper.make_node("If", ["c"], ["y"], then_branch=branch(ADD, weight), else_branch=branch(ADD, weight))
        assert has_float16(model([ADD], [weight]).SerializeToString()) is half
        assert has_float16(model([within]).SerializeToString()) is half
