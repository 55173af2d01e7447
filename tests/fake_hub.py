"""A server on this machine that answers as the Hugging Face Hub does, for tests of what comes from there."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from trainer.bases import remote

COMMIT = "c" * 40
LARGE = (".safetensors", ".bin", ".ckpt", ".onnx")


@dataclass
class FakeHub:
    """What the server has and how it misbehaves, and what it was asked for."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, file, and the Range header."""
    cut: list[int] = field(default_factory=list)
    """After how many bytes the next connections break that bring a large file."""
    hold: int = 0
    """After how many bytes a large file stops coming, while the connection stays open."""
    ranges: bool = True
    store: str = ""
    """Address of another server that large files are sent from, as the Hub's are; this one answers there too."""
    tokens: dict[str, str] = field(default_factory=dict)
    """The Authorization header that came with a file, by the host that was asked."""
    broken: int = 0
    """An HTTP status that is answered to everything."""
    going_down: threading.Event = field(default_factory=threading.Event)

    def brought(self) -> list[tuple[str, str]]:
        """File and range of every GET that asked for a file."""
        return [(name, span) for method, name, span in self.asked if method == "GET" and "/api/" not in name]


class Handler(BaseHTTPRequestHandler):
    """The Hub's API, as far as a download uses it."""

    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/(?:resolve|stored)/([^/]+)/(.+)", path)
        self.hub.asked.append((self.command, file[3] if file else path, self.headers.get("Range", "")))
        found = listing or file
        repo = self.hub.repos.get(found[1]) if found else None
        if self.hub.broken:
            self.answer(self.hub.broken, b"", {})
        elif found is None or repo is None:
            self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif listing:
            self.answer(200, json.dumps(self.listed(found[1], repo)).encode(), {"Content-Type": "application/json"})
        elif found[1] in self.hub.gated:
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            assert found[2] == COMMIT
            self.hub.tokens[self.headers["Host"].split(":")[0]] = self.headers.get("Authorization", "")
            if self.hub.store and "/resolve/" in path and found[3].endswith(LARGE):
                self.answer(302, b"", {"Location": self.hub.store + path.replace("/resolve/", "/stored/")})
            else:
                self.send_file(repo[found[3]])

    @staticmethod
    def listed(name: str, repo: dict[str, bytes]) -> dict[str, object]:
        siblings = []
        for file, content in repo.items():
            sibling = {"rfilename": file, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
            if file.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        return {"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "siblings": siblings}

    def send_file(self, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.hub.ranges else None
        if span:
            last = int(span[2]) if span[2] else len(content) - 1
            headers["Content-Range"] = f"bytes {span[1]}-{last}/{len(content)}"
            content = content[int(span[1]) : last + 1]
        self.answer(206 if span else 200, content, headers)

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        large = self.path.endswith(LARGE)
        if large and self.hub.cut:
            self.wfile.write(content[: self.hub.cut.pop(0)])
            self.close_connection = True
        elif large and self.hub.hold:
            self.wfile.write(content[: self.hub.hold])
            self.wfile.flush()
            self.hub.going_down.wait(30)
            self.close_connection = True
        else:
            self.wfile.write(content)


@contextmanager
def serving(fake: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Have the Hub be `fake`, and the Hub's cache `cache`."""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": fake}))
    endpoint = f"http://127.0.0.1:{listening.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
    yield fake
    fake.going_down.set()
    close_session()
    listening.shutdown()
    listening.server_close()
