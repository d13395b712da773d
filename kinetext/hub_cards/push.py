"""One commit with everything, or nothing: how folders get to the Hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

__all__ = ["check_license", "check_push", "push_folder"]

logger = logging.getLogger(__name__)

_LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def check_license(license: str) -> None:
    """Raises ValueError unless this may be a licence id of the Hub."""
    if not _LICENSE_ID.fullmatch(license):
        raise ValueError(f"license={license!r} is none of the Hub's ids, such as cc-by-4.0, mit, other or unknown.")


def check_push(repo_id: str) -> None:
    """Raises before long work what would make a push fail after it.

    Raises:
        PermissionError: the Hub does not know the token.
        ConnectionError: the Hub could not be reached.
        ValueError: `repo_id` is no `owner/name`.
    """
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} names no owner; write owner/name.")
    try:
        HfApi().whoami()
    except Exception as error:
        raise _explained(error, repo_id, "nothing was sent") from error


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    repo_type: str,
    private: bool = False,
    message: str,
    replaced: str | list[str] | None = None,
    only: Sequence[str] | None = None,
) -> str:
    """Uploads a folder in one commit, to a repository that is made if there is none.

    Files of the repository that the folder does not have stay as they are, except those named by `replaced`. A
    repository made by this call is removed again if the upload fails, so that no empty one is left.

    Args:
        folder: what to upload.
        repo_id: `owner/name`.
        repo_type: `model` or `dataset`.
        private: make it private; an existing public repository is then refused, because its history is public.
        message: of the commit.
        replaced: pattern, or patterns, of files that the folder replaces as a whole, such as `*.parquet`.
        only: names of the files to upload; all by default.

    Returns:
        The hash of the commit.

    Raises:
        PermissionError: the token is missing, wrong or may not write there.
        ConnectionError: the Hub could not be reached, or the upload was cut off.
        ValueError: the repository is public and `private` was asked for, or `repo_id` is no id.
    """
    api = HfApi()
    is_new = _made(api, repo_id, repo_type=repo_type, private=private)
    try:
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            repo_type=repo_type,
            commit_message=message,
            delete_patterns=replaced,
            allow_patterns=None if only is None else list(only),
        )
    except BaseException as error:  # Ctrl-C too
        if is_new:
            _remove(api, repo_id, repo_type)
        if isinstance(error, Exception):
            state = (
                "nothing of it is on the Hub"
                if is_new
                else "the repository is as it was, unless only the answer was lost"
            )
            raise _explained(error, repo_id, state) from error
        raise
    return commit.oid


def _made(api: HfApi, repo_id: str, *, repo_type: str, private: bool) -> bool:
    """Whether the repository was not there before; it is afterwards."""
    try:
        info = api.repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError:
        pass  # or it is there and this user may not see it, which creating it will tell
    except Exception as error:
        raise _explained(error, repo_id, "nothing was sent") from error
    else:
        if private and not info.private:
            raise ValueError(
                f"{repo_id} is there already and public; choose another name, or make it private in its settings first."
            )
        return False
    try:
        api.create_repo(repo_id, repo_type=repo_type, private=private)
    except Exception as error:
        raise _explained(error, repo_id, "nothing was sent") from error
    return True


def _remove(api: HfApi, repo_id: str, repo_type: str) -> None:
    try:
        api.delete_repo(repo_id, repo_type=repo_type, missing_ok=True)
    except Exception as error:
        logger.warning("%s was made and is still empty; it could not be removed again: %s", repo_id, error)


def _explained(error: Exception, repo_id: str, state: str) -> Exception:
    """The error of the Hub's client with a way out; the client's own errors keep their message."""
    if isinstance(error, HFValidationError):
        return error
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401 or isinstance(error, LocalTokenNotFoundError):
        return PermissionError(
            f"the Hub does not know who pushes {repo_id}: no token or a wrong one; "
            "set HF_TOKEN or log in with `hf auth login`."
        )
    if status == 403:
        return PermissionError(f"the token may not write to {repo_id}; use a token with write access to that owner.")
    # Also the errors of the HTTP library, whose name depends on the version of the client.
    return ConnectionError(f"{repo_id} was not pushed, {state}: {error}")
