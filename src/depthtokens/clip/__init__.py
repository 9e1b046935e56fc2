"""The frozen CLIP, through open_clip. What stands here loads no torch."""

from dataclasses import dataclass

NORMALISATIONS = ("imagenet", "clip")
"""Whose mean and standard deviation pixels are normalised with: ImageNet's (released code), or those that the CLIP was trained with."""
PRECISIONS = ("float32", "bfloat16", "float16")
"""Precisions in which the image tower can run; everything learned stays in float32."""


@dataclass(frozen=True)
class CLIPIdentity:
    """Which CLIP it was, as files made with it say.

    Attributes:
        name: an open_clip model name, a file or folder, or "bundled": what it was loaded as.
        weights: the tag or file of its weights, None where the name says it all.
        fingerprint: SHA-256 over its weights, 64 hex digits.
    """

    name: str
    weights: str | None
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name}, {self.fingerprint[:12]}"
