"""A GPU that is not there: tensors on it have a shape, a type and a device, and no numbers; those of the processor are real.

Whatever would make a program wait for a GPU is noted, and what mixes the two raises, as it would on a real one.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from depthtokens.depth.loss import resize_matrix

CUDA = torch.device("cuda", 0)
_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default, torch.ops.aten.is_nonzero.default)
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Pretended(TorchDispatchMode):
    """Runs what is on the processor, only works out what is on the GPU, and keeps count of what passes between them.

    Attributes:
        waits: what was read from the GPU, for which a program has to wait, and where. What is read is all ones.
        sent: what was copied to it, and where.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.sent: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = [value for value in tensors if isinstance(value, FakeTensor)]
        target = kwargs.get("device")
        if not there and (target is None or torch.device(target).type == "cpu"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # in inference mode these come whole; what they are made of is what counts
                return func.decompose(*args, **kwargs)
        if func in _READS:
            self.waits.append(_where(func))
            return tensors[0].dtype == torch.bool or 1
        if func in _COPIES:
            to = args[0].device if func is _COPIES[1] else torch.device(target or args[0].device)
            if to.type == "cpu":
                self.waits.append(_where(func))
                with unset_fake_temporarily():
                    return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            if tensors[-1].device.type == "cpu":
                self.sent.append(_where(func))
        elif any(not isinstance(value, FakeTensor) and value.ndim for value in tensors):
            raise RuntimeError(f"{func} on {[str(value.device) for value in tensors]}: expected all tensors to be on the same device")
        return func(*args, **kwargs)


def _where(func: Any) -> str:
    """An operation, and the line that asked for it."""
    frame = next(f for f in reversed(traceback.extract_stack()) if "torch" not in f.filename and f.filename != __file__)
    return f"{func} at {frame.filename}:{frame.lineno}"


@contextmanager
def pretended() -> Iterator[Pretended]:
    """The block in which there is a GPU; what was made on it is of no use afterwards."""
    gpu = Pretended()
    try:
        with (
            warnings.catch_warnings(),
            mock.patch.object(torch.Tensor, "backward", backward),
            mock.patch.object(torch.Tensor, "pin_memory", lambda values: values),
            FakeTensorMode(allow_non_fake_inputs=True),
            gpu,
        ):
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            yield gpu
    finally:
        resize_matrix.cache_clear()


def bring(*modules: torch.nn.Module) -> None:
    """Put modules on the GPU: empty parameters and buffers take the place of theirs."""
    for module in (inner for outer in modules for inner in outer.modules()):
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = torch.nn.Parameter(torch.empty(value.shape, dtype=value.dtype, device=CUDA), value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=CUDA)


@torch.no_grad()
def backward(loss: Tensor) -> None:
    """`loss.backward()`, node by node: torch's own engine asks the driver for streams, and there is none."""
    grads: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    for node in _order(loss.grad_fn):
        if node not in grads:
            continue
        given = grads.pop(node)
        if hasattr(node, "variable"):
            node.variable.grad = given[0] if node.variable.grad is None else node.variable.grad + given[0]
            continue
        metas = node._input_metadata
        inputs = [given[i] if i in given else torch.zeros(list(m.shape), dtype=m.dtype, device=m.device) for i, m in enumerate(metas)]
        found = getattr(node, "apply", node)(*inputs)
        for grad, (after, i) in zip(found if isinstance(found, tuple) else (found,), node.next_functions, strict=True):
            if after is not None and grad is not None:
                meta, held = after._input_metadata[i], grads.setdefault(after, {})
                assert grad.device == meta.device, node
                grad = grad.sum_to_size(list(meta.shape)).to(meta.dtype)
                held[i] = held[i] + grad if i in held else grad


def _order(node: Any) -> list[Any]:
    """The nodes of a graph, each before those that it hands gradients on to."""
    done: dict[Any, None] = {}

    def visit(node: Any) -> None:
        if node is not None and node not in done:
            for after, _ in node.next_functions:
                visit(after)
            done[node] = None

    visit(node)
    return list(reversed(done))
