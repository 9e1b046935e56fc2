"""Devices and precisions by name, and threads after a fork."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from depthtokens.clip.device import dtype_of, find_device
from depthtokens.errors import UsageError


def test_devices_and_precisions():
    assert find_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(UsageError, match="did you mean 'float16'"):
        dtype_of(torch.float16)
    with pytest.raises(UsageError, match="did you mean"):
        find_device("cdua")


FORKED = """
import os, signal, torch
import depthtokens.clip.device
torch.set_num_threads(2)
a, b = torch.rand(500, 500), torch.rand(1, 64, 64, 64)
def work():
    return (a @ a).sum() + torch.nn.functional.interpolate(b, scale_factor=4, mode="bilinear").exp().sum()
expected = work()
if not (pid := os.fork()):
    signal.alarm(30)
    os._exit(not torch.allclose(work(), expected))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forked processes on this system")
def test_a_process_may_fork_after_it_has_predicted():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.stdout == "0\n", done.stderr
