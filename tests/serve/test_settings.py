"""Who may listen where, and with which tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from gloam import cli
from gloam.errors import GloamError
from gloam.serve.server import listen
from gloam.serve.settings import Settings
from gloam.serve.tokens import Tokens

GOOD = "reader " + "a" * 24 + "\n# a comment\n\neditor " + "b" * 24 + "\n"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_tokens_and_roles(tmp_path: Path) -> None:
    tokens = Tokens.read(write(tmp_path / "t", GOOD))
    assert [tokens.role_of(text) for text in ("a" * 24, "b" * 24, "c" * 24, "", "a" * 23)] == [
        "reader",
        "editor",
        None,
        None,
        None,
    ]
    assert "a" * 24 not in repr(vars(tokens))


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (GOOD, 0o644, "chmod 600"),
        (GOOD, 0o640, "chmod 600"),
        ("", 0o600, "holds no token"),
        ("reader", 0o600, "not of the form"),
        ("admin " + "a" * 24, 0o600, "no such role"),
        ("reader short", 0o600, "too short"),
        ("reader " + "ä" * 24, 0o600, "not ASCII"),
        (GOOD + GOOD, 0o600, "there twice"),
    ],
)
def test_token_files_that_are_refused(text: str, mode: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=message) as refused:
        Tokens.read(write(tmp_path / "t", text, mode))
    assert "a" * 24 not in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org", "::"])
def test_other_hosts_need_tokens(host: str) -> None:
    with pytest.raises(GloamError, match="--token-file"):
        Settings(host=host)
    assert not Settings(host=host, tokens=Tokens({"a" * 24: "reader"})).is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_this_machine_needs_none(host: str) -> None:
    assert Settings(host=host).is_loopback


def test_a_port_that_is_taken_says_so() -> None:
    with listen(Settings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GloamError, match=rf"127\.0\.0\.1:{port}.*--port"):
            listen(Settings(port=port))
    with pytest.raises(GloamError, match="no port"):
        Settings(port=70_000)


def test_mistakes_on_the_command_line_end_with_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ([str(folder / "nothing")], "no gallery"),
        ([str(folder), "--host", "0.0.0.0"], "--token-file"),
        ([str(folder), "--token-file", str(folder / "nothing")], "no token file"),
    ):
        assert cli.main(["serve", *words]) == 2
        error = capsys.readouterr().err
        assert message in " ".join(error.split())
        assert "Traceback" not in error
