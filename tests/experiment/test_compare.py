"""Two results, compared image by image."""

from __future__ import annotations

import csv
import io
import json

import pytest

from depthtokens.depth.metrics import METRICS
from depthtokens.errors import UsageError
from depthtokens.experiment.compare import compare
from depthtokens.experiment.statistics import paired_bootstrap


def result(path, offset=0.0, names="abcdef", protocol="auty2023", **others):
    """A file as `evaluate --csv` writes it."""
    text = io.StringIO()
    columns = dict.fromkeys(METRICS, 0.0) | {"pixels": 7, "protocol": protocol, **others}
    writer = csv.DictWriter(text, ["name", *columns])
    writer.writeheader()
    for name in names:
        writer.writerow({"name": name, **columns, "abs_rel": 0.1 * ord(name) + offset * (ord(name) % 3)})
    path.write_text(text.getvalue())
    return path


def test_differences_are_paired_by_name(tmp_path):
    a, b = result(tmp_path / "a.csv", 1.0), result(tmp_path / "b.csv", names="fedcba", align="median")
    found = compare(a, b)
    assert found.differences["abs_rel"] == paired_bootstrap([1.0, 2.0, 0.0, 1.0, 2.0, 0.0], [0.0] * 6)
    assert found.means["abs_rel"][0] - found.means["abs_rel"][1] == pytest.approx(1.0)
    assert (found.images, found.protocol, found.aligned) == (6, "auty2023", ("", "median"))
    assert json.loads(json.dumps(found.to_dict()))["metrics"]["d1"]["difference"]["mean"] == 0


@pytest.mark.parametrize(("changes", "said"), [
    ({"names": "abcdeg"}, "are compared on the same images: 1 are in .*a.csv alone, such as f"),
    ({"protocol": "pooled"}, "a.csv is by auty2023, .*b.csv by pooled"),
    ({"pixels": 8}, "6 images have other pixels that count, such as a"),
    ({"rmse": "much"}, "b.csv holds no scores of images: give what `depthtokens evaluate ... --csv FILE` wrote"),
    ({"names": "aa"}, "b.csv holds no scores of images"),
])  # fmt: skip
def test_other_results_are_refused(tmp_path, changes, said):
    with pytest.raises(UsageError, match=said) as caught:
        compare(result(tmp_path / "a.csv"), result(tmp_path / "b.csv", **changes))
    assert "\n" not in str(caught.value)
