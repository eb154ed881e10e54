"""What a server allows: addresses, roles, and the limits that keep one request from harming the others."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal

from gloam.errors import GloamError
from gloam.serve.tokens import Role, Tokens

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Settings:
    """Limits and access rules of one server.

    Attributes:
        host: address to listen on.
        port: TCP port; 0: any free one.
        tokens: who may do what; None: nobody needs a token (loopback only).
        open_role: role of everybody where no tokens are given.
        names: host names that requests may ask for, besides ``host`` and the loopback names. Other names are refused: a
            foreign page that points its own name at this machine (DNS rebinding) gets nothing.
        origins: pages of other origins that may call the interface (CORS); none by default.
        upload: bytes of one request's body.
        images: images of one request.
        pixels: pixels of one image, checked before it is decoded.
        filters: entries of one list in a request: keys, cameras, tracklets, persons.
        top: most hits of one search.
        queue: requests that may wait for the model, and for the gallery; the next is answered 503.
        batch: images of one forward pass.
        gather: seconds to wait for further images of a pass.
        seconds: time for one request after its body has arrived.
        body_seconds: time for a body to arrive.
        decode_seconds: time to decode one image.
        decode_memory: bytes of memory of a decoding process.
        decoders: decoding processes.
        rate: requests a minute of one client, on average.
        burst: requests that a client may make at once.
        retention_seconds: rows whose time is over are looked for this often, before an answer shows any.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tokens: Tokens | None = None
    open_role: Role = "reader"
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    upload: int = 20 * 2**20
    images: int = 16
    pixels: int = 40_000_000
    filters: int = 1000
    top: int = 1000
    queue: int = 128
    batch: int = 16
    gather: float = 0.003
    seconds: float = 60.0
    body_seconds: float = 30.0
    decode_seconds: float = 10.0
    decode_memory: int = 2**30
    decoders: int = 2
    rate: float = 1200.0
    burst: int = 200
    retention_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise GloamError(f"There is no port {self.port}: ports are 0 to 65535.")
        if not self.is_loopback and self.tokens is None:
            raise GloamError(
                f"The server would be open to everybody who reaches {self.host}. Give --token-file FILE (lines 'reader "
                "TOKEN' and 'editor TOKEN'), or stay on this machine with --host 127.0.0.1."
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def allowed_names(self) -> frozenset[str] | None:
        """Host names that are answered; None: any (a public address, where tokens decide)."""
        if self.is_loopback:
            return frozenset({*LOOPBACK_NAMES, self.host, *self.names})
        return frozenset({self.host, *LOOPBACK_NAMES, *self.names}) if self.names else None


Access = Literal["search", "edit"]
ROLES: dict[Role, tuple[Access, ...]] = {"reader": ("search",), "editor": ("search", "edit")}


@dataclass
class Who:
    """Who asks.

    Attributes:
        role: decides what is allowed.
        client: address, for rates; never logged with what was asked.
    """

    role: Role
    client: str = field(default="", repr=False)

    def may(self, access: Access) -> bool:
        """Whether the role has this right."""
        return access in ROLES[self.role]
