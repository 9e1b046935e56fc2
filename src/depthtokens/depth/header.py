"""The header of a token file: what it says besides its tensors, and how that is checked. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..clip import CLIPIdentity
from ..errors import UsageError
from ..places import for_others
from ..schema import check_plain, legible, read_dataclass
from .settings import ModelSettings, Provenance, Shape

FINGERPRINT = re.compile(r"[0-9a-f]{64}")
STATISTICS = ("running_mean", "running_var")
"""What a token file keeps of each BatchNorm layer that adapts."""


@dataclass(frozen=True)
class Header:
    """What a token file says besides its tensors.

    Attributes:
        model: the model's settings.
        clip: the CLIP that the tokens were learned on.
        provenance: where the tokens come from.
        versions: package -> version that wrote the file.
    """

    model: ModelSettings
    clip: CLIPIdentity
    provenance: Provenance
    versions: Mapping[str, str]

    FORMAT = 1

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; without the places of this machine, since token files go to others.

        Raises:
            UsageError: for a provenance that is no plain values.
        """
        training = self.provenance.training
        check_plain(training, "provenance")
        clip = CLIPIdentity.of(self.clip.name, self.clip.weights, self.clip.fingerprint)  # files of before may name a path
        optional = {"protocol": self.provenance.protocol, "training": training and legible(for_others(training))}
        return {
            "format": self.FORMAT, "model": self.model.to_header(), "clip": asdict(clip), "versions": dict(self.versions),
            **{name: value for name, value in optional.items() if value is not None},
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Header:
        """The inverse of `to_dict`, checked before any model is built from it.

        Args:
            values: the header of a file, as JSON gives it back.
            shapes: of the tensors that the file holds, by name.

        Raises:
            UsageError: for another format, values of the wrong type or out of bounds, or tensors that are not those of the settings.
        """
        if type(values.get("format")) is not int or values["format"] != cls.FORMAT or not {"model", "clip"} <= values.keys():
            raise UsageError(f"not a token file of this version (format {values.get('format')}, expected {cls.FORMAT})")
        model = ModelSettings.from_header(values["model"])
        clip = read_clip(values["clip"])
        check_shapes(model, shapes)
        protocol, training = values.get("protocol"), values.get("training")
        if not isinstance(protocol, str | None) or not isinstance(training, Mapping | None):
            raise UsageError("its provenance is none")
        versions = values.get("versions", {})
        if not isinstance(versions, Mapping) or not all(isinstance(version, str) for version in versions.values()):
            raise UsageError("its versions are none")
        return cls(model, clip, Provenance(legible(protocol), legible(training)), legible(versions))


def read_clip(values: Any) -> CLIPIdentity:
    """Which CLIP a file says it was made with. Raises UsageError where it does not."""
    if not isinstance(values, Mapping) or not {"name", "fingerprint"} <= values.keys():
        raise UsageError("it does not name its CLIP")
    clip = read_dataclass(CLIPIdentity, {"weights": None, **legible(values)}, "CLIP")
    if not FINGERPRINT.fullmatch(clip.fingerprint):
        raise UsageError("the fingerprint of its CLIP is none")
    return clip


def check_shapes(settings: ModelSettings, shapes: Mapping[str, Shape], width: int | None = None) -> None:
    """Raise UsageError unless a token file with these settings may hold tensors of these shapes.

    Args:
        settings: as the file states them.
        shapes: of the tensors in the file, by name.
        width: of the text tower; None for any.

    Raises:
        UsageError: for a tensor that is missing, of another shape, or of no use to such a model.
    """
    expected = settings.shapes(width)
    for name, shape in expected.items():
        found = shapes.get(name)
        if found is None or len(found) != len(shape) or any(a not in (-1, b) for a, b in zip(shape, found, strict=True)):
            wanted = f"({', '.join('any' if n < 0 else str(n) for n in shape)})"
            raise UsageError(f"'{name}' should be {wanted}, found {'nothing' if found is None else found}")
    ends = STATISTICS if settings.batchnorm == "adapt" else ()
    for name in shapes.keys() - expected.keys():
        if not (name.startswith("batchnorm.") and name.endswith(ends)):
            raise UsageError(f"'{name}' is no tensor of a model with these settings")
