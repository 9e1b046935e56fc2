"""The hub, where token files are shared by name: one file fetched or a commit made through huggingface_hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from ..clip.hubname import PREFIX, HubName
from ..clip.load import quiet
from ..errors import DepthTokensError, UsageError, WeightsError, first_line

LARGEST = 2**29
"""Bytes of the largest file that is fetched: that of the most bins that a model can have, in a wide text tower."""
MESSAGE = "Tokens and model card"
"""What a commit says where nothing else is asked."""
LOG_IN = "log in with `hf auth login`, or give a token in HF_TOKEN"


class Commit(NamedTuple):
    """What was pushed: the address of the commit, and its id."""

    url: str
    id: str


def is_hub_name(text: str | Path) -> bool:
    """Whether a person names something on the hub, rather than a path."""
    return str(text).startswith(PREFIX)


def fetch(name: HubName, filename: str, token: str | None = None, local_files_only: bool = False) -> Path:
    """One file of a repository, from the hub's cache where it is there and still the latest, or nothing may be fetched.

    Args:
        name: of the repository.
        filename: in it.
        token: for a private or gated one; None for that of the user who is logged in.
        local_files_only: whether only the cache may be looked at; HF_HUB_OFFLINE does the same.

    Returns:
        Where it lies in the cache, not to be written to.

    Raises:
        UsageError: for a name that the hub cannot have.
        WeightsError: where there is no such repository, revision or file, where it cannot be reached, or the file is far too large.
    """
    api = HfApi(token=token)
    with _talking(name, filename):
        if re.fullmatch("[0-9a-f]{40}", name.revision or ""):  # a commit never changes, so nobody need be asked about it again
            kept = try_to_load_from_cache(name.repo, filename, revision=name.revision)
            if isinstance(kept, str):
                return Path(kept)
        if not local_files_only:
            _check_answer(api, name, filename)
        found = api.hf_hub_download(name.repo, filename, revision=name.revision, local_files_only=local_files_only)
    return Path(found)


def _check_answer(api: HfApi, name: HubName, filename: str) -> None:
    """Look at what the hub says of a file before it is fetched.

    The library makes names of files in its cache of some of it. Where the hub says nothing, the download says what is wrong.

    Raises:
        WeightsError: for a file that is far larger than any of tokens, or an answer that is none of the hub's.
    """
    try:
        said = api.get_hf_file_metadata(url=hf_hub_url(name.repo, filename, revision=name.revision, endpoint=api.endpoint))
    except HFValidationError:
        raise
    except Exception:
        return
    if not all(re.fullmatch(r"[\w-]+", text or "", re.ASCII) for text in (said.etag, said.commit_hash)):
        raise WeightsError(f"{api.endpoint} does not answer for {name} as the hub does: unset HF_ENDPOINT, or look at your proxy")
    if said.size is not None and said.size > LARGEST:
        raise WeightsError(f"{filename} of {name} has {said.size:,} bytes, and token files {LARGEST:,} at most: it was not fetched")


def publish(name: HubName, files: Mapping[str, bytes], message: str, private: bool = False, token: str | None = None) -> Commit:
    """Put files into a repository, which is made where it is not there, in one commit.

    Args:
        name: of the repository; its revision is a branch, which is made too.
        files: by their names in it; others in it stay.
        message: of the commit.
        private: whether the repository must be one that only its owner sees.
        token: of the user; None for that of the one who is logged in.

    Raises:
        UsageError: for a name that the hub cannot have, or a repository that is public and should be private.
        DepthTokensError: where the hub refuses, or cannot be reached.
    """
    api = HfApi(token=token)
    with _talking(name):
        api.create_repo(name.repo, private=private or None, exist_ok=True)
        if private and not api.model_info(name.repo).private:
            raise UsageError(f"{name.repo} is there and public, so nothing was pushed: make it private on the hub, or leave out --private")
        if name.revision is not None:
            api.create_branch(name.repo, branch=name.revision, exist_ok=True)
        additions = [CommitOperationAdd(file, content) for file, content in files.items()]
        done = api.create_commit(name.repo, additions, commit_message=message, revision=name.revision)
    return Commit(done.commit_url, done.oid)


@contextmanager
def _talking(name: HubName, filename: str = "") -> Iterator[None]:
    """A context in which the hub is asked: without the library's own bars and log lines, its errors as ours.

    Args:
        name: of the repository.
        filename: what is fetched from it; "" where something is pushed.
    """
    bars = not are_progress_bars_disabled()
    if bars:
        disable_progress_bars()
    try:
        with quiet():
            yield
    except DepthTokensError:
        raise
    except Exception as error:  # the library passes on those of its HTTP client, which is another one in each of its versions
        raise _in_words(error, name, filename) from error
    finally:
        if bars:
            enable_progress_bars()


def _in_words(error: Exception, name: HubName, filename: str) -> DepthTokensError:
    """An error of the library in one line."""
    kind = WeightsError if filename else DepthTokensError
    if isinstance(error, HFValidationError):
        return UsageError(f"'{name.repo}' is no name of the hub ({first_line(error)})")
    if isinstance(error, GatedRepoError):
        return kind(f"{name.repo} is gated: ask for access on its page of the hub, then {LOG_IN}")
    if isinstance(error, RepositoryNotFoundError):
        return kind(f"no repository {name.repo} on the hub, or a private one: check the name, or {LOG_IN}")
    if isinstance(error, RevisionNotFoundError):
        return kind(f"{name.repo} has no revision '{name.revision or 'main'}'")
    why = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if why is None or isinstance(why, OfflineModeIsEnabled):
        if not filename:
            return kind("nothing can be pushed offline: HF_HUB_OFFLINE is set")
        return kind(f"{name} is not in the cache, and nothing may be fetched (local_files_only, or HF_HUB_OFFLINE is set)")
    if isinstance(error, EntryNotFoundError) and error is why:
        return kind(f"{name} holds no {filename}: its tokens were not pushed by depthtokens, or it holds something else")
    status = why.response.status_code if isinstance(why, HfHubHTTPError) else None
    if status in (401, 403):
        return kind(f"the hub does not allow this for {name.repo}: {LOG_IN} ({first_line(why)})")
    return kind(f"cannot {'fetch' if filename else 'push'} {name} ({first_line(why or error)}): try again later")
