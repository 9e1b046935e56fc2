"""The verb `models`."""

from __future__ import annotations

import json

from helpers import refused, run


def test_models(capsys):
    code, out, err = run(capsys, "models", "rn50x4", "--json")
    (plain, quick) = json.loads(out)
    assert code == 0 and not err and plain["tags"] == quick["tags"] == ["openai"]
    assert (plain["name"], plain["stride"], plain["dense"]) == ("RN50x4", 32, ["layer4", "attnpool", "value"])
    code, out, _ = run(capsys, "models", "*-SigLIP-512")
    assert code == 0 and "tokens last" in out and "any, 512x512" in out and "webli" in out
    assert "has 'RN51' in its name" in refused(capsys, "models", "RN51")
