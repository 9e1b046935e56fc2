"""Write the token file that comes with the package: the demonstration's learned-7, with its usual settings. Takes about two minutes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from depthtokens.demo import TOKENS
from depthtokens.demo.run import DemoSettings, run_demo

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(run_demo(DemoSettings(), Path(folder)).tokens, TOKENS)
    print(TOKENS)
