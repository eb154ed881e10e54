"""Tokens and the roles behind them, read from a file that only its owner can read."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path
from typing import Literal

from gloam.errors import GloamError, did_you_mean

Role = Literal["reader", "editor"]
SHORTEST = 20  # characters: 120 bits of `secrets.token_urlsafe(15)`
_ROLES: tuple[Role, ...] = ("reader", "editor")


class Tokens:
    """Which token has which role. Tokens themselves are not kept, only their digests.

    Args:
        roles: token -> role.
    """

    def __init__(self, roles: dict[str, Role]) -> None:
        self._roles = [(_digest(token), role) for token, role in roles.items()]

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Read lines ``reader TOKEN`` and ``editor TOKEN``; empty lines and those that begin with # count for nothing.

        Raises:
            GloamError: no such file, others can read it, unknown roles, short or repeated tokens.
        """
        try:
            with path.open(encoding="utf-8") as file:
                mode = os.fstat(file.fileno()).st_mode
                lines = file.read().splitlines()
        except FileNotFoundError as error:
            raise GloamError(
                f"There is no token file {path}. Make one: "
                f"(umask 077; echo reader $(openssl rand -hex 24) > {path}), and use the token on the page."
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise GloamError(f"The token file {path} cannot be read: {error}.") from error
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise GloamError(f"Others on this machine can read the tokens in {path}. Run: chmod 600 {path}")
        found: dict[str, Role] = {}
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2:
                raise GloamError(f"Line {number} of {path} is not of the form 'reader TOKEN'.")
            role = next((known for known in _ROLES if known == words[0]), None)
            if role is None:
                raise GloamError(
                    f"Line {number} of {path}: there is no such role. {did_you_mean(words[0][:20], _ROLES)}"
                )
            if len(words[1]) < SHORTEST or not words[1].isascii():
                raise GloamError(
                    f"The token in line {number} of {path} is too short or not ASCII: give at least {SHORTEST} "
                    "characters, for example from openssl rand -hex 24."
                )
            if words[1] in found:
                raise GloamError(f"The token in line {number} of {path} is there twice.")
            found[words[1]] = role
        if not found:
            raise GloamError(f"The token file {path} holds no token. Write lines 'reader TOKEN' and 'editor TOKEN'.")
        return cls(found)

    def role_of(self, token: str) -> Role | None:
        """The role of a token. All are compared, each in constant time: the time tells nothing about them."""
        asked = _digest(token)
        found: Role | None = None
        for digest, role in self._roles:
            if hmac.compare_digest(digest, asked):
                found = role
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
