"""A Hugging Face Hub on the loopback, small enough to read: create, commit, resolve."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """Repositories in memory: name -> list of commits, each file -> bytes."""

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.created: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.token: str | None = None  # what a request must carry, if anything
        self.address = ""

    def oid(self, name: str, number: int) -> str:
        """Hash of a commit."""
        return hashlib.sha1(f"{name}{number}".encode()).hexdigest()

    def at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Hash and files of a revision."""
        commits = self.commits.get(name, [])
        for number in reversed(range(len(commits))):
            if revision in ("main", self.oid(name, number)):
                return self.oid(name, number), commits[number]
        return None


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub that answers on a free port of this machine."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def allowed(self) -> bool:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.token is None or self.headers.get("Authorization") == f"Bearer {hub.token}":
                return True
            self.answer(401, b'{"error": "Invalid username or password."}')
            return False

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if not self.allowed():
                return
            found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+?)(\?.*)?", self.path)
            if not found:
                self.answer(404, b"{}")
                return
            name, revision, file = found[1], found[2], found[3]
            if name not in hub.commits:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")
                return
            commit = hub.at(name, revision)
            if commit is None:
                self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
                return
            oid, files = commit
            if file not in files:
                self.answer(404, b"{}", X_Error_Code="EntryNotFound", X_Repo_Commit=oid)
                return
            tag = hashlib.sha256(files[file]).hexdigest()
            self.answer(200, files[file], ETag=f'"{tag}"', X_Repo_Commit=oid)

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self.chunks()
            if not self.allowed():
                return
            if self.path == "/api/repos/create":
                wanted = json.loads(body)
                hub.created.append(wanted)
                name = f"{wanted['organization']}/{wanted['name']}"
                known = name in hub.commits
                hub.commits.setdefault(name, [{}])
                answer = {"url": f"{hub.address}/{name}", "name": name}
                self.answer(409 if known else 200, json.dumps(answer).encode(), Content_Type="application/json")
            elif self.path.startswith("/api/validate-yaml"):
                self.answer(200, b'{"errors": [], "warnings": []}', Content_Type="application/json")
            elif found := re.match(r"/api/models/([^/]+/[^/]+)/preupload/", self.path):
                files = [
                    {"path": entry["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for entry in json.loads(body)["files"]
                ]
                self.answer(200, json.dumps({"files": files}).encode(), Content_Type="application/json")
            elif found := re.match(r"/api/models/([^/]+/[^/]+)/commit/", self.path):
                commits = hub.commits[found[1]]
                changed = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in map(json.loads, body.decode().splitlines())
                    if line["key"] == "file"
                }
                commits.append({**commits[-1], **changed})
                oid = hub.oid(found[1], len(commits) - 1)
                url = f"{hub.address}/{found[1]}/commit/{oid}"
                answer = {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}
                self.answer(200, json.dumps(answer).encode(), Content_Type="application/json")
            else:
                self.answer(404, b"{}")

        def chunks(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return b""
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
