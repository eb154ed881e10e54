"""The way to a Qdrant cluster: addresses, the key, and what can go wrong on the way."""

from __future__ import annotations

import contextlib
import os
import ssl
import urllib.parse
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gloam.errors import GloamError
from gloam.gallery.rows import plain

KEY_VARIABLE = "GLOAM_QDRANT_KEY"
TLS_VARIABLE = "GLOAM_QDRANT_TLS"  # 1: encrypt qdrant:// too; a file: the certificates to trust
META = "__gloam"  # suffix of the collection that holds space, settings and audit
_IDS = uuid.UUID("7e1f3a52-7f0c-4a76-9a9c-2f0e3f6f7f11")  # ids of points are made from keys within this name space
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def guarded(client: Any) -> Any:
    """A client whose failures are GloamErrors."""
    return client if isinstance(client, _Guarded) else _Guarded(client)


class _Guarded:
    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            with _errors():
                return method(*arguments, **options)

        return call


def point_id(key: str) -> str:
    """Id of a row's point: the same key always has the same one."""
    return str(uuid.uuid5(_IDS, key))


def connect(url: str) -> Any:
    """A client of the cluster that a URL names; the key comes from the environment.

    Raises:
        GloamError: the extra is missing, or a key would travel unencrypted.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise GloamError("Galleries in a Qdrant cluster need its client: pip install 'gloam[qdrant]'.") from error
    collection_name(url)
    parts = urllib.parse.urlsplit(url)
    secure, options = _encryption(parts.scheme == "qdrants")
    key = os.environ.get(KEY_VARIABLE)
    if key and not secure and parts.hostname not in _LOOPBACK:
        raise GloamError(
            f"{KEY_VARIABLE} is set, but {plain(url)} is not encrypted. Use qdrants:// or {TLS_VARIABLE}=1 (TLS)."
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a key goes to this machine unencrypted
        return QdrantClient(
            url=f"{'https' if secure else 'http'}://{host}:{parts.port or 6333}",
            api_key=key,
            timeout=60,
            check_compatibility=False,  # asks the server in a thread that warns past everybody
            **options,
        )


def _encryption(secure: bool) -> tuple[bool, dict[str, Any]]:
    """Whether to encrypt, and which certificates to trust beside those of the system.

    Raises:
        GloamError: the variable names no file.
    """
    told = os.environ.get(TLS_VARIABLE, "")
    if told in ("", "0", "1"):
        return secure or told == "1", {}
    if not Path(told).is_file():
        raise GloamError(f"{TLS_VARIABLE} is 1, 0 or a file of certificates (PEM); there is no file {plain(told)}.")
    try:
        return True, {"verify": ssl.create_default_context(cafile=told)}
    except ssl.SSLError as error:
        raise GloamError(f"{TLS_VARIABLE}: {plain(told)} holds no certificate (PEM).") from error


def collection_name(url: str) -> str:
    """Name of the collection in ``qdrant://host:6333/name``.

    Raises:
        GloamError: no host, or no simple name.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # read only now, and refused if it is no number
    except ValueError as error:
        raise GloamError(f"{plain(url)} is no gallery's address ({error}).") from error
    name = parts.path.strip("/")
    if not parts.hostname or not name or not name.replace("-", "").replace("_", "").isalnum() or name.endswith(META):
        raise GloamError(f"{plain(url)} is no gallery's address. Write qdrant://host:6333/name (letters, digits, - _).")
    if parts.username or parts.password or parts.query:
        raise GloamError(f"Keep keys out of addresses: they are read from the environment variable {KEY_VARIABLE}.")
    return name


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Say in words what the client says in exceptions."""
    from qdrant_client.http.exceptions import ApiException

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(no effect in the local Qdrant|Local mode performs exact).*")
        try:
            yield
        except (ApiException, OSError, ValueError) as error:
            reason = plain(str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise GloamError(
                f"The Qdrant cluster did not do what was asked ({reason}). Is it running, and is {KEY_VARIABLE} right?"
            ) from error
