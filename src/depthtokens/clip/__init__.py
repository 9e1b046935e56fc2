"""The frozen CLIP, through open_clip. What stands here loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..places import last_part

NORMALISATIONS = ("imagenet", "clip")
"""Whose mean and standard deviation pixels are normalised with: ImageNet's (released code), or those that the CLIP was trained with."""
PRECISIONS = ("float32", "bfloat16", "float16")
"""Precisions in which the image tower can run; everything learned stays in float32."""


@dataclass(frozen=True)
class CLIPIdentity:
    """Which CLIP it was, as files made with it say.

    Attributes:
        name: an open_clip model name, "bundled", a hub name, or the name of a file or folder, without where it lies.
        weights: the tag or the name of the file of its weights, None where the name says it all.
        fingerprint: SHA-256 over its weights, 64 hex digits.
    """

    name: str
    weights: str | None
    fingerprint: str

    @staticmethod
    def of(name: str, weights: str | None, fingerprint: str) -> CLIPIdentity:
        """What others are told of a CLIP that was loaded as `name` with `weights`, which may be paths."""
        return CLIPIdentity(last_part(name), None if weights is None else last_part(weights), fingerprint)

    def __str__(self) -> str:
        return f"{self.name}, {self.fingerprint[:12]}"
