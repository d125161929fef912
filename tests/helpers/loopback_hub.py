"""A Hub on the loopback, as far as models are pushed to it and fetched from it: https://huggingface.co/docs/hub/api."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

Files = dict[str, bytes]


@dataclass
class Hub:
    """Repositories by name; of each, branches by name and commits by hash."""

    address: str = ""
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def files(self, name: str, revision: str) -> Files | None:
        """What a revision holds; None where there is none."""
        return self.commits.get(self.sha(name, revision) or "")

    def sha(self, name: str, revision: str) -> str | None:
        known = self.branches[name]
        return known.get(revision) or (revision if revision in self.commits else None)

    def commit(self, name: str, branch: str, files: Files) -> str:
        sha = hashlib.sha1(f"{name} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[name][branch] = sha
        return sha


class Answer(BaseHTTPRequestHandler):
    """One answer."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._read()

    def do_HEAD(self) -> None:
        self._read()

    def do_POST(self) -> None:
        path = self._path()
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if path == ["api", "repos", "create"]:
            values = json.loads(body)
            name = f"{values['organization']}/{values['name']}"
            if name not in self.hub.branches:
                self.hub.branches[name] = {}
                self.hub.commit(name, "main", {})
            self._json({"url": f"{self.hub.address}/{name}"})
        elif path == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif path[4:5] == ["branch"]:
            name = "/".join(path[2:4])
            self.hub.commit(name, path[5], dict(self.hub.files(name, "main") or {}))
            self._json({})
        elif path[4:5] == ["preupload"]:
            asked = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in asked]})
        elif path[4:5] == ["commit"]:
            self._commit("/".join(path[2:4]), path[5], [json.loads(line) for line in body.splitlines()])
        else:
            self._json({"error": "not here"}, 404)

    def _commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.hub.files(name, branch) or {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = self.hub.commit(name, branch, files)
        address = f"{self.hub.address}/{name}/commit/{sha}"
        self._json({"success": True, "commitUrl": address, "commitOid": sha, "hookOutput": ""})

    def _read(self) -> None:
        path = self._path()
        api = path[:2] == ["api", "models"]
        name = "/".join(path[2:4] if api else path[:2])
        rest = path[4:] if api else path[2:]
        if name not in self.hub.branches:
            self._json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
            return
        revision = rest[1] if len(rest) > 1 else "main"
        files, sha = self.hub.files(name, revision), self.hub.sha(name, revision)
        if files is None or sha is None:
            self._json({"error": "Revision not found"}, 404, **{"X-Error-Code": "RevisionNotFound"})
        elif api and rest[:1] == ["tree"]:
            entries = [{"type": "file", "path": p, "size": len(c), "oid": _etag(c)} for p, c in files.items()]
            self._json(entries)
        elif api:
            self._json({"id": name, "sha": sha, "siblings": [{"rfilename": path} for path in files]})
        elif "/".join(rest[2:]) in files:
            content = files["/".join(rest[2:])]
            self._send(200, content, **{"ETag": f'"{_etag(content)}"', "X-Repo-Commit": sha})
        else:
            self._json({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})

    def _path(self) -> list[str]:
        self.hub.asked.append(f"{self.command} {self.path}")
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), **{"Content-Type": "application/json", **headers})

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """The Hub that huggingface_hub asks for as long as this lasts, and an empty cache."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfHub", (Answer,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    files = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
