"""The site, as Sphinx builds it: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import depthtokens  # noqa: E402
import generated  # noqa: E402

project = "depthtokens"
author = "The depthtokens authors"
copyright = "2026, the depthtokens authors. MIT licence"
version = release = depthtokens.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "generated", "conf.py", "generated.py"]

html_theme = "furo"
html_title = "depthtokens"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 3

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_ivar = True
suppress_warnings = ["misc.highlighting_failure"]  # of `!command` in notebooks, which is no Python

generated.write(HERE / "generated")


def code(app: object, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """What stands in single backquotes in a docstring is code."""
    lines[:] = [re.sub(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))", lambda found: f"``{found[1]}``" + "\\ " * bool(found[2]), line) for line in lines]


def paths(app: object, file: object, page: str, content: list[str]) -> None:
    """The changelog is read where it lies, and in the site: its links to pages are without their folder there."""
    if page == "changelog":
        content[0] = content[0].replace("](docs/", "](")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", code)
    app.connect("include-read", paths)
