"""A stand-in for the hub on loopback: as much of its HTTP interface as pushing and pulling a few small files calls."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

USER, TOKEN = "ann", "hf_secret"


@dataclass
class Repository:
    """Commits are whole trees; `refs` names some of them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files, branch="main"):
        new = hashlib.sha1(uuid.uuid4().bytes).hexdigest()
        self.commits[new] = {**self.commits.get(self.refs.get(branch, ""), {}), **files}
        self.refs[branch] = new
        return new


class Hub:
    """What the server holds, and how it misbehaves.

    Attributes:
        repositories: by "USER/NAME".
        requests: method and path of everything that was asked.
        large: files that are uploaded as large ones are, by how their name ends.
        fail: status of every answer, where that is not None.
        headers: that replace those of a file's answer, None for one that is missing.
        lost: bytes that a file's body lacks at its end.
    """

    def __init__(self):
        self.repositories, self.requests, self.blobs = {}, [], {}
        self.large, self.fail, self.headers, self.lost = (), None, {}, 0

    def add(self, name, files, **facts):
        repository = self.repositories[name] = Repository(**facts)
        return repository.commit(files)


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, body=b"", code=None, head=False, **headers):
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            if not head:
                self.wfile.write(body[: len(body) - hub.lost] if headers else body)
            if hub.lost and headers:
                self.close_connection = True

        def begin(self):
            """The path, in parts; None where the answer is given already."""
            path = urlsplit(self.path).path
            hub.requests.append((self.command, unquote(path)))
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if hub.fail:
                return self.answer(hub.fail, {"error": "down"}, head=self.command == "HEAD")
            return [unquote(part) for part in path.strip("/").split("/")]

        def known(self):
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def seen(self, name, head=False):
            """The repository, where this user may see it."""
            repository = hub.repositories.get(name)
            if repository is None or (repository.private and not self.known()):
                return self.answer(404, code="RepoNotFound", head=head)
            if repository.gated and not self.known():
                return self.answer(403, code="GatedRepo", head=head)
            return repository

        def file(self, head):
            parts = self.begin()
            if parts is None:
                return None
            if parts[:2] == ["api", "models"]:
                name = "/".join(parts[2:4])
                if (repository := self.seen(name)) is None:
                    return None
                revision = parts[5] if parts[4:5] in (["revision"], ["tree"]) else "main"
                sha = repository.refs.get(revision, revision)
                if sha not in repository.commits:
                    return self.answer(404, code="RevisionNotFound", head=head)
                if parts[4:5] == ["tree"]:
                    files = repository.commits[sha].items()
                    return self.answer(200, [{"type": "file", "path": path, "size": len(held), "oid": sha} for path, held in files])
                return self.answer(200, {"id": name, "private": repository.private, "sha": sha, "siblings": [], "tags": []})
            if len(parts) < 5 or parts[2] != "resolve":
                return self.answer(404, head=head)
            name, revision, path = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            if (repository := self.seen(name, head)) is None:
                return None
            commit = repository.refs.get(revision, revision)
            if commit not in repository.commits:
                return self.answer(404, code="RevisionNotFound", head=head)
            if path not in repository.commits[commit]:
                return self.answer(404, code="EntryNotFound", head=head, **{"X-Repo-Commit": commit})
            content = repository.commits[commit][path]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.answer(200, content, head=head, **{"ETag": etag, "X-Repo-Commit": commit, **hub.headers})

        def do_HEAD(self):
            self.file(head=True)

        def do_GET(self):
            self.file(head=False)

        def do_PUT(self):
            parts = self.begin()
            if parts is not None:
                hub.blobs[parts[-1]] = self.body
                self.answer(200)

        def do_POST(self):
            parts = self.begin()
            if parts is None:
                return None
            if parts == ["api", "validate-yaml"]:
                return self.answer(200, {"errors": [], "warnings": []})
            if not self.known():
                return self.answer(401, {"error": "Invalid username or password."})
            if parts == ["api", "repos", "create"]:
                asked = json.loads(self.body)
                name = f"{asked['organization']}/{asked['name']}"
                if asked["organization"] != USER:
                    return self.answer(403, {"error": "You don't have the rights to create a model under this namespace"})
                url = {"url": f"http://{self.headers['Host']}/{name}", "name": name}
                if name in hub.repositories:
                    return self.answer(409, url)
                hub.add(name, {".gitattributes": b""}, private=asked.get("visibility") == "private" or bool(asked.get("private")))
                return self.answer(200, url)
            if parts[-3:] == ["info", "lfs", "objects"] or parts[2:] == ["info", "lfs", "objects", "batch"]:
                href = f"http://{self.headers['Host']}/blob/"
                objects = [
                    {**item, "actions": {"upload": {"href": href + item["oid"], "header": {}}}} for item in json.loads(self.body)["objects"]
                ]
                return self.answer(200, {"transfer": "basic", "objects": objects})
            repository = self.seen("/".join(parts[2:4]))
            if repository is None:
                return None
            verb, branch = parts[4:6]
            if verb == "branch":
                if branch in repository.refs:
                    return self.answer(409, {"error": "Reference already exists"})
                repository.refs[branch] = repository.refs["main"]
                return self.answer(200, {})
            if verb == "preupload":
                files = [
                    {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(hub.large) else "regular", "shouldIgnore": False}
                    for file in json.loads(self.body)["files"]
                ]
                return self.answer(200, {"files": files})
            lines = [json.loads(line) for line in self.body.splitlines()]
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"}
            files |= {line["value"]["path"]: hub.blobs[line["value"]["oid"]] for line in lines if line["key"] == "lfsFile"}
            new = repository.commit(files, branch)
            name = "/".join(parts[2:4])
            return self.answer(200, {"commitOid": new, "commitUrl": f"http://{self.headers['Host']}/{name}/commit/{new}"})

    return Handler


@contextmanager
def serve():
    """A `Hub` and its address, for as long as the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
