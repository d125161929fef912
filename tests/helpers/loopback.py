"""Servers on the loopback: a Hub, as far as models are pushed to it and fetched from it, and a file with faults."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


class Handler(BaseHTTPRequestHandler):
    """One request to a server, and its answer."""

    protocol_version = "HTTP/1.1"

    def send(self, status: int, content: bytes, **headers: str) -> None:  # headers have _ for -
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[Handler], state: Any) -> Iterator[str]:
    """The address of a server, whose handlers have this state."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("WithState", (handler,), {"state": state})) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@dataclass
class FileServer:
    """A file, the bytes before which the next connections break, an error, and the headers that were sent to it."""

    content: bytes
    breaks: list[int] = field(default_factory=list)
    status: int = 200
    address: str = ""
    requests: list[dict[str, str]] = field(default_factory=list)


class FileHandler(Handler):
    state: FileServer

    def do_HEAD(self) -> None:
        self.send(self.state.status, self.state.content)

    def do_GET(self) -> None:
        self.state.requests.append({name.lower(): value for name, value in self.headers.items()})
        end = self.state.breaks.pop(0) if self.state.breaks else len(self.state.content)
        begin, size = int(self.headers.get("range", "bytes=0-")[6:-1]), len(self.state.content)
        headers = {"Content_Range": f"bytes {begin}-{size - 1}/{size}"} if begin else {}
        headers |= {"Content_Length": str(size - begin), "Connection": "close"}  # announced, whatever is sent
        self.send(206 if begin else 200, self.state.content[begin:end], **headers)


@contextmanager
def serving_file(content: bytes) -> Iterator[FileServer]:
    """A server of this file, whatever its path."""
    state = FileServer(content)
    with serving(FileHandler, state) as state.address:
        yield state


def apart_from_the_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hugging Face's folder, a fresh one, and none of the network but the loopback's server."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@dataclass
class Hub:
    """Repositories by name, as https://huggingface.co/docs/hub/api has them; of each, commits by branch and by hash."""

    address: str = ""
    repositories: dict[str, dict[str, str]] = field(default_factory=dict)  # a branch's commit
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def sha(self, name: str, revision: str) -> str | None:
        return self.repositories[name].get(revision) or (revision if revision in self.commits else None)

    def files(self, name: str, revision: str) -> dict[str, bytes]:
        """What a revision holds."""
        return self.commits.get(self.sha(name, revision) or "", {})

    def commit(self, name: str, branch: str, files: dict[str, bytes]) -> str:
        sha = sha1(f"{name} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        self.repositories.setdefault(name, {})[branch] = sha
        return sha


class HubHandler(Handler):
    state: Hub

    def do_POST(self) -> None:
        path, hub = self._path(), self.state
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        name, kind = "/".join(path[2:4]), path[4] if len(path) > 4 else path[-1]
        if kind == "create":
            name = "{organization}/{name}".format(**json.loads(body))
            if name not in hub.repositories:
                hub.commit(name, "main", {})
            self._json({"url": f"{hub.address}/{name}"})
        elif kind == "validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif kind == "branch":
            hub.commit(name, path[5], hub.files(name, "main"))
            self._json({})
        elif kind == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in asked]})
        else:
            assert kind == "commit", path
            files = dict(hub.files(name, path[5]))
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            sha = hub.commit(name, path[5], files)
            address = f"{hub.address}/{name}/commit/{sha}"
            self._json({"success": True, "commitUrl": address, "commitOid": sha, "hookOutput": ""})

    def do_GET(self) -> None:
        path, hub = self._path(), self.state
        api = path[:2] == ["api", "models"]
        name, rest = "/".join(path[2:4] if api else path[:2]), path[4:] if api else path[2:]
        if name not in hub.repositories:
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return
        revision = rest[1] if len(rest) > 1 else "main"
        files, sha, file = hub.files(name, revision), hub.sha(name, revision), "/".join(rest[2:])
        if sha is None:
            self._json({"error": "Revision not found"}, 404, X_Error_Code="RevisionNotFound")
        elif api and rest[:1] == ["tree"]:
            self._json(
                [{"type": "file", "path": p, "size": len(c), "oid": sha1(c).hexdigest()} for p, c in files.items()]
            )
        elif api:
            self._json({"id": name, "sha": sha, "siblings": [{"rfilename": path} for path in files]})
        elif file in files:
            self.send(200, files[file], ETag=f'"{sha1(files[file]).hexdigest()}"', X_Repo_Commit=sha)
        else:
            self._json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)

    do_HEAD = do_GET

    def _path(self) -> list[str]:
        self.state.asked.append(f"{self.command} {self.path}")
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.send(status, json.dumps(value).encode(), Content_Type="application/json", **headers)


@contextmanager
def serving_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """The Hub that huggingface_hub asks for as long as this lasts, and an empty cache."""
    hub = Hub()
    with serving(HubHandler, hub) as hub.address:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        files = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield hub
