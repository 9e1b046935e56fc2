"""The CLIP that a token file states: found without following the file anywhere that it could choose."""

from __future__ import annotations

import open_clip

from ..errors import DepthTokensError, WeightsError
from . import CLIPIdentity
from .load import FrozenCLIP, load_clip
from .remembered import recall


def load_stated(stated: CLIPIdentity) -> FrozenCLIP:
    """Load the CLIP that a file states: the bundled one, an open_clip model with one of its tags, or one that this user has loaded before.

    A path or a name of the hub in the file is never followed; CLIPs that were loaded from there are known by their fingerprint.

    Args:
        stated: by the file.

    Returns:
        That CLIP; of another fingerprint only where the file states a name and tag that stand for another one.

    Raises:
        WeightsError: where it cannot be had so, with what to do.
    """
    wanted = f"needs the CLIP '{stated.name}' with fingerprint {stated.fingerprint[:12]}"
    known = recall(stated.fingerprint)
    reason = "" if known else "a token file by itself loads the bundled CLIP, or an open_clip model with one of its tags"
    found: FrozenCLIP | None = None
    if is_public(stated.name, stated.weights):
        try:
            found = load_clip(stated.name, stated.weights)
        except DepthTokensError as error:
            reason = str(error)
    if found is not None and (found.fingerprint == stated.fingerprint or not known):
        return found
    for name, weights in known:
        try:
            kept = load_clip(name, weights)
        except DepthTokensError as error:
            reason = f"last loaded from {weights or name}: {error}"
        else:
            if kept.fingerprint == stated.fingerprint:
                return kept
            reason = f"{weights or name}, where it was loaded from, has changed since"
    if found is not None:
        return found
    raise WeightsError(f"{wanted}: give it with --clip (clip= in Python); {reason}")


def is_public(name: str, weights: str | None) -> bool:
    """Whether a name says for everybody which CLIP it is: the bundled one, or an open_clip model with one of its tags."""
    return name == "bundled" or (name in open_clip.list_models() and weights in open_clip.list_pretrained_tags_by_model(name))
