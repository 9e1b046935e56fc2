"""Model cards: what a token file's header says, in Markdown, for whoever finds the file on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from ..clip import CLIPIdentity
from ..clip.hubname import HubName
from ..clip.stated import is_public
from ..errors import UsageError, cut
from .checkpoint import TOKENS, packed
from .header import Header
from .settings import ModelSettings

CARD = "README.md"
UNSTATED = "not-stated"
"""What the hub is told as the name of a licence that nobody gave."""
_NOT_SHOWN = {
    "out", "workers", "device", "tensorboard", "save_minutes", "data_fingerprint", "data_place", "cache", "protocol", "clip", "weights",
    *(field.name for field in fields(ModelSettings)),
}  # fmt: skip
"""Settings of a run that matter to nobody else, or that the card says elsewhere."""
_MOST = 40
"""Settings of a run that a card lists at most."""


def shared_files(
    tensors: Mapping[str, Tensor], header: Header, name: HubName, licence: str | None = None, scores: str = ""
) -> dict[str, bytes]:
    """What a repository of the hub holds, by file name: the token file, and a card that is written from its header.

    Args:
        tensors: what was trained, by name.
        header: everything else; what it says of places on this machine is left out.
        name: of the repository.
        licence: as `model_card` takes it.
        scores: likewise.

    Raises:
        UsageError: for a licence that is no name of one, or a header that is no plain values.
    """
    return {TOKENS: packed(tensors, header.to_dict()), CARD: model_card(header, name, licence, scores).encode()}


def model_card(header: Header, name: HubName, licence: str | None = None, scores: str = "") -> str:
    """A model card.

    Args:
        header: of the token file; what it says of places on this machine is left out.
        name: of the repository.
        licence: of the tokens, as the hub calls it ("mit", "cc-by-4.0"); None where none was stated, which the card says.
        scores: what is known of how good they are, as Markdown; "" for nothing.

    Returns:
        Markdown, which begins with the metadata that the hub reads.

    Raises:
        UsageError: for a licence that is no name of one, or a header that is no plain values.
    """
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise UsageError(f"'{cut(licence, 80)}' is no licence as the hub calls one, such as mit or cc-by-4.0")
    said = header.to_dict()
    parts = [
        _metadata(licence),
        f"# {name.repo.partition('/')[2]}",
        _purpose(header.model),
        _facts(said),
        "## Scores",
        scores or f"None are given here. `depthtokens evaluate {name} --data DATA` gives them, beside two controls that never look at the "
        "image.",
        *(["## Training", training] if (training := _training(said.get("training", {}))) else []),
        "## Use",
        _use(CLIPIdentity(**said["clip"]), name),
        "## Licence",
        f"`{licence}`, as stated by whoever pushed these tokens." if licence else "None was stated by whoever pushed these tokens.",
        "The CLIP has its own licence, and so has the data that the tokens were learned on.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def code(text: object) -> str:
    """Text as a piece of Markdown that shows it as it is, whatever marks are in it."""
    line = " ".join(str(text).split()) or " "
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _metadata(licence: str | None) -> str:
    """The block of YAML that the hub reads."""
    stated = [f"license: {licence}"] if licence else ["license: other", f"license_name: {UNSTATED}"]
    tags = ["depth-estimation", "monocular-depth", "clip", "prompt-learning"]
    return "\n".join(
        ["---", "library_name: depthtokens", "pipeline_tag: depth-estimation", *stated, "tags:", *(f"- {t}" for t in tags), "---"]
    )


def _purpose(model: ModelSettings) -> str:
    """What such a file is, in a few sentences."""
    words = model.words
    filled = {
        "learned": f"{words.anchors or words.count} learned vectors",
        "random": f"{words.count} random vectors",
        "words": f"{words.count} words",
    }[words.kind]
    context = f", with {model.parsed.contexts} learned in its `{{ctx}}` slots" if model.parsed.contexts else ""
    return (
        f"Metric depth from a frozen CLIP: {filled} in the `{{depth}}` slot of a prompt{context}, one for each of {words.count} depth "
        "bins, compared with the CLIP's image features. Made with the Python package `depthtokens`. The file holds vectors and settings, "
        "and none of the CLIP's weights."
    )


def _facts(said: Mapping[str, Any]) -> str:
    """The header's settings as a list."""
    model, clip = said["model"], said["clip"]
    lo, hi = model["depth_range"]
    metres = [f"{value:.4g}" for value in model["centres"]]
    shown = metres if len(metres) <= 12 else [*metres[:3], "...", metres[-1]]
    facts = {
        "CLIP": code(clip["name"]) + (f" with weights {code(clip['weights'])}" if clip["weights"] else ""),
        "its fingerprint": code(clip["fingerprint"]),
        "template": code(model["template"]),
        "depth words": code(cut(model["depth"], 400)),
        "bins": f"{code(cut(model['bins'], 200))}, centres at {', '.join(shown)} m",
        "depth range": f"{lo:g} to {hi:g} m",
        "image features": f"{code(model['dense'])}, pixels normalised as by {code(model['normalisation'])}",
        "factor on similarities": code(model["scale"]),
        **({"decided by the image": code(model["condition"])} if "condition" in model else {}),
        "BatchNorm": code(model["batchnorm"]),
        "shorter side of a photo": f"{model['predict_side']} pixels" if model["predict_side"] else "as it is",
        "seed": code(model["seed"]),
        "protocol": code(said["protocol"]) if "protocol" in said else "none stated",
        "written with": ", ".join(f"{code(package)} {code(version)}" for package, version in said["versions"].items()) or "unknown",
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _training(training: Mapping[str, Any]) -> str:
    """What the header says of training as a list, the tables in it read as one; "" where it says nothing."""
    found = {name: value for name, value in training.items() if not isinstance(value, Mapping)}
    for table in training.values():
        for name, value in table.items() if isinstance(table, Mapping) else ():
            found[name] = f"{value.get('data')}, {value['images']} images" if isinstance(value, Mapping) and "images" in value else value
    losses = found.pop("epoch_losses", None)
    if isinstance(losses, list) and losses and isinstance(losses[-1], float):
        found["mean loss of the last epoch"] = round(losses[-1], 4)
    plain = {name: value for name, value in found.items() if name not in _NOT_SHOWN and isinstance(value, str | int | float)}
    return "\n".join(f"- {code(name.replace('_', ' '))}: {code(cut(str(value), 200))}" for name, value in list(plain.items())[:_MOST])


def _use(clip: CLIPIdentity, name: HubName) -> str:
    """How such tokens are used, in Python and as a command."""
    own = is_public(clip.name, clip.weights)
    place = json.dumps(str(name).removeprefix("hf:"))
    python = ["import depthtokens as dt", ""]
    python += [f"model = dt.DepthTokens.from_pretrained({place}" + (")" if own else ', clip=dt.load_clip("CLIP"))')]
    python += ['depth = model.predict("photo.jpg")  # .metres [H, W]']
    command = f"depthtokens predict {name} photo.jpg" + ("" if own else " --clip CLIP")
    where = "The CLIP is found by itself." if own else (
        f"`CLIP` stands for the file, folder or hub name of the CLIP that the tokens were learned on, {code(clip.name)}; one with another "
        "fingerprint is refused."
    )  # fmt: skip
    return "\n".join(["```python", *python, "```", "", "```sh", command, "```", "", where])
