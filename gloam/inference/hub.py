"""Released models on the Hugging Face Hub: upload a folder, download and verify one. Needs the extra ``hub``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from gloam import __version__
from gloam.errors import GloamError
from gloam.inference.published import FILES, NEEDED, verify

PREFIX = "hf://"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def push(folder: Path, repository: str, *, public: bool = False) -> str:
    """Upload a released folder; the repository is created if it is new.

    Args:
        folder: as ``publish`` wrote it; it is verified first.
        repository: ``OWNER/NAME``.
        public: a new repository may be seen by everybody; by default only by its owner.

    Returns:
        Address of the commit.

    Raises:
        GloamError: a missing package, a bad name, no permission, or no network.
    """
    hub = _library()
    name, _ = _parse(repository)
    verify(folder)
    api = hub.HfApi(endpoint=_endpoint(), library_name="gloam", library_version=__version__)
    try:
        api.create_repo(name, private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message=f"Weights published with gloam {__version__}",
        )
    except Exception as error:
        # The library raises kinds of its own, of its HTTP client and of the operating system.
        raise GloamError(
            f"{folder} could not be uploaded to {name} ({_first_line(error)}). Log in with a token that may write "
            "(hf auth login), check the name and the network, and push again; nothing here was changed."
        ) from error
    return str(commit.commit_url)


def download(address: str) -> Path:
    """A released model as a folder of the Hub's cache, every needed file verified.

    Args:
        address: ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION`` (branch, tag or commit).

    Raises:
        GloamError: a bad address, a model that is not there or not of gloam, no network and nothing in the cache, or a
            file that differs from its digest.
    """
    hub = _library()
    name, revision = _parse(address.removeprefix(PREFIX))
    folder = Path()
    for file in NEEDED:
        try:
            found = Path(hub.hf_hub_download(name, file, revision=revision, endpoint=_endpoint()))
        except Exception as error:
            raise GloamError(_reason(hub, name, file, error)) from error
        folder = found.parent
        # The rest comes from the same commit, whatever is uploaded meanwhile.
        revision = folder.name
    verify(folder)
    return folder


def _reason(hub: Any, name: str, file: str, error: Exception) -> str:
    errors, cache = hub.errors, hub.constants.HF_HUB_CACHE
    # The local kinds are also kinds of the general ones: first what the server said.
    if isinstance(error, errors.GatedRepoError):
        return f"{name} asks for permission. Ask its owner on the Hub, then log in (hf auth login)."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"There is no model {name} on the Hub, or it is private: check the name, or log in (hf auth login)."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no such revision. Give a branch, a tag or a whole commit after @."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{name} was not published by gloam: it has no {file} (gloam publish writes {', '.join(FILES)})."
    return (
        f"{file} of {name} is not in {cache}, and the Hub could not be reached ({_first_line(error)}). Needed are "
        f"{', '.join(NEEDED)}. Where there is a network: hf download {name} --local-dir {name.split('/')[1]}; copy "
        f"that folder here and give it in place of {PREFIX}{name}."
    )


def _parse(repository: str) -> tuple[str, str | None]:
    name, _, revision = repository.partition("@")
    if not _NAME.fullmatch(name):
        raise GloamError(f"{repository!r} is no name of a model on the Hub. Give OWNER/NAME or OWNER/NAME@REVISION.")
    return name, revision or None


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise GloamError('The Hugging Face Hub needs huggingface_hub: pip install "gloam[hub]".') from error
    return huggingface_hub


def _endpoint() -> str | None:
    """A mirror or a server of one's own; the library reads the variable only when it is imported."""
    return os.environ.get("HF_ENDPOINT") or None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
