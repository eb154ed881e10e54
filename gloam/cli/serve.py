"""The command ``gloam serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from gloam.console import console
from gloam.errors import GloamError


def serve(
    gallery: str,
    /,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    role: Literal["reader", "editor"] = "reader",
    model: Path | None = None,
    no_model: bool = False,
    device: str = "auto",
    name: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    origin: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    open_browser: bool = False,
) -> None:
    """Search a gallery in the browser, and by other software over HTTP.

    Example:
        gloam serve people.gallery --port 8000

    Args:
        gallery: folder or qdrant:// address.
        host: address to listen on; any but this machine's own demands --token-file.
        port: TCP port; 0 takes any free one.
        token_file: lines "reader TOKEN" and "editor TOKEN", readable by you alone.
        role: of everybody, where no tokens are given: a reader searches, an editor also adds and erases.
        model: run folder, where it is not the one that the gallery remembers.
        no_model: load no model: rows and vectors can be searched for, images cannot.
        device: where to put the model.
        name: a further host name that the server answers to (behind a proxy); may be repeated.
        origin: a page of another origin that may use the interface, such as https://host; may be repeated.
        open_browser: open the page when the server is ready.
    """
    open_page(
        gallery,
        host=host,
        port=port,
        token_file=token_file,
        role=role,
        model=model,
        no_model=no_model,
        device=device,
        name=name,
        origin=origin,
        open_browser=open_browser,
    )


def require_packages() -> None:
    """Raises GloamError, which says what to install, where a package of the server is missing."""
    try:
        import gloam.serve.app  # noqa: F401
    except ImportError as error:
        raise GloamError(f"gloam serve needs further packages ({error.name}): pip install 'gloam[serve]'") from error


def open_page(
    gallery: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    role: Literal["reader", "editor"] = "reader",
    model: Path | None = None,
    no_model: bool = False,
    device: str = "auto",
    name: tuple[str, ...] = (),
    origin: tuple[str, ...] = (),
    open_browser: bool = False,
) -> None:
    """Serve a gallery until the process is told to end; arguments are those of :func:`serve`."""
    require_packages()
    from gloam.gallery.gallery import open_gallery
    from gloam.serve.app import create_app
    from gloam.serve.server import listen, run
    from gloam.serve.settings import Settings
    from gloam.serve.tokens import Tokens

    settings = Settings(
        host=host,
        port=port,
        tokens=None if token_file is None else Tokens.read(token_file),
        open_role=role,
        names=tuple(word.lower() for word in name),
        origins=origin,
    )
    opened = open_gallery(gallery, run=model, device=device)
    place = listen(settings)
    try:
        app = create_app(opened, settings, model=None if no_model else opened.model)
    except BaseException:
        place.close()
        raise
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{place.getsockname()[1]}"
    if not settings.is_loopback:
        console(stderr=True).print(
            "warning: without TLS, tokens and images can be read on the way: put a proxy with TLS in front "
            "(docs/serve.md shows one).",
            soft_wrap=True,
        )

    def ready() -> None:
        screen = console()
        screen.print(f"{len(opened):,} rows at {address}  (Ctrl-C ends it)", soft_wrap=True, highlight=False)
        screen.file.flush()
        if open_browser:
            import webbrowser

            webbrowser.open(address)

    run(app, place, ready=ready)
