"""A server with the few routes of the Hugging Face Hub that pushing and loading use."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_test"


class Hub:
    """What the server holds.

    Attributes:
        files: content by path, by repository.
        requests: method and path of every request.
        url: of the server.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.url = ""

    def commit(self, repository: str) -> str:
        content = repr(sorted(self.files[repository].items())).encode()
        return hashlib.sha1(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def answer(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str, status: int = 404) -> None:
        self.answer(status, {"error": code}, {"X-Error-Code": code})

    def do_POST(self) -> None:
        hub = self.hub
        hub.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.missing("RepoNotFound", 401)
        else:
            self.post(body)

    def post(self, body: bytes) -> None:
        hub = self.hub
        if self.path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told.get('organization') or 'me'}/{told['name']}"
            hub.files.setdefault(name, {})
            self.answer(200, {"url": f"{hub.url}/{name}", "id": name, "name": name})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            told = json.loads(body)["files"]
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in told
            ]
            self.answer(200, {"files": files})
        elif "/commit/" in self.path:
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    hub.files[name][entry["value"]["path"]] = content
            oid = hub.commit(name)
            url = f"{hub.url}/{name}/commit/{oid}"
            self.answer(200, {"success": True, "commitOid": oid, "commitUrl": url})
        else:
            self.missing("EntryNotFound")

    def do_GET(self) -> None:
        hub = self.hub
        hub.requests.append(f"{self.command} {self.path}")
        name, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if name not in hub.files:
            self.missing("RepoNotFound", 401)
        elif revision not in ("main", hub.commit(name)):
            self.missing("RevisionNotFound")
        elif file not in hub.files[name]:
            self.missing("EntryNotFound")
        else:
            content = hub.files[name][file]
            etag = hashlib.sha1(content).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": hub.commit(name)}
            self.answer(200, content, headers)

    do_HEAD = do_GET


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve an empty hub on a free port of this machine."""
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
