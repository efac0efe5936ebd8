"""A small hub for tests, on loopback: files of models and datasets, new repositories, commits of small files, a login.

Speaks as much of the Hugging Face hub's protocol as `huggingface_hub` needs for these.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_tests_own_token"


class Repository:
    """Commits of a repository: each a mapping from paths to contents."""

    def __init__(self, kind, name, *, private=False):
        self.kind, self.name, self.private = kind, name, private
        self.commits = []
        self.commit({})

    def commit(self, files):
        whole = {**(self.commits[-1][1] if self.commits else {}), **files}
        text = f"{len(self.commits)}{sorted(whole)}{self.name}".encode()
        self.commits.append((hashlib.sha1(text).hexdigest(), whole))  # noqa: S324 (a name, no secret)

    def at(self, revision):
        """Commit and files of a revision; None if unknown."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class SmallHub:
    """The repositories, and what was asked of the hub."""

    def __init__(self):
        self.repositories, self.asked, self.address = {}, [], ""

    def add(self, kind, name, files, **more):
        """A repository with a commit of these files (path -> text or bytes)."""
        found = self.repositories.setdefault((kind, name), Repository(kind, name, **more))
        found.commit({path: text.encode() if isinstance(text, str) else text for path, text in files.items()})
        return found


class _Handler(BaseHTTPRequestHandler):
    hub: SmallHub

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, *, body=True):
        self.hub.asked.append((self.command, self.path))
        if self.path.startswith("/api/whoami"):
            self.say(200, {"type": "user", "name": "me", "orgs": []} if self.logged_in else None)
        elif found := re.match(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/?]+))?(/tree/.*)?$", self.path.split("?")[0]):
            kind, name, revision, tree = found.groups()
            self.about(kind, name, revision or "main", tree)
        elif found := re.match(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", self.path.split("?")[0]):
            kind, name, revision, file = found.groups()
            self.file("datasets" if kind else "models", name, revision, file, body=body)
        else:
            self.say(404, {"error": "not found"}, code="EntryNotFound")

    def about(self, kind, name, revision, tree):
        found = self.repository(kind, name)
        commit = found.at(revision) if found else None
        if found is None:
            self.say(404, {"error": "not found"}, code="RepoNotFound")
        elif commit is None:
            self.say(404, {"error": "not found"}, code="RevisionNotFound")
        elif tree:
            entries = [{"type": "file", "path": path, "size": len(text), "oid": path} for path, text in commit[1].items()]
            self.say(200, entries)
        else:
            siblings = [{"rfilename": path} for path in commit[1]]
            card = {"license": "mit"} if b"license: mit" in commit[1].get("README.md", b"") else {}
            self.say(
                200, {"_id": "1", "id": name, "sha": commit[0], "private": found.private, "siblings": siblings, "cardData": card}
            )

    def file(self, kind, name, revision, path, *, body):
        found = self.repository(kind, name)
        commit = found.at(revision) if found else None
        if commit is None:
            self.say(404, {"error": "not found"}, code="RevisionNotFound" if found else "RepoNotFound")
        elif path not in commit[1]:
            self.say(404, {"error": "not found"}, code="EntryNotFound", commit=commit[0])
        else:
            self.send(200, commit[1][path], body=body, etag=hashlib.sha256(commit[1][path]).hexdigest(), commit=commit[0])

    def do_POST(self):
        self.hub.asked.append((self.command, self.path))
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.logged_in:
            self.say(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            asked = json.loads(text)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            there = ("models", name) in self.hub.repositories
            if not there:
                self.hub.repositories["models", name] = Repository(
                    "models", name, private=bool(asked.get("private") or asked.get("visibility") == "private")
                )
            self.say(409 if there else 200, {"url": f"{self.hub.address}/{name}"})
        elif self.path == "/api/validate-yaml":
            self.say(200, {"errors": [], "warnings": []})
        elif found := re.match(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(text)["files"]]
            self.say(200, {"files": files})
        elif found := re.match(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            lines = [json.loads(line) for line in text.splitlines()]
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"}
            self.hub.repositories["models", found[1]].commit(files)
            oid = self.hub.repositories["models", found[1]].commits[-1][0]
            self.say(
                200,
                {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.address}/{found[1]}/commit/{oid}", "hookOutput": ""},
            )
        else:
            self.say(404, {"error": "not found"})

    @property
    def logged_in(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repository(self, kind, name):
        found = self.hub.repositories.get((kind, name))
        return found if found is not None and (self.logged_in or not found.private) else None

    def say(self, status, value, **headers):
        self.send(status, json.dumps(value).encode(), body=self.command != "HEAD", **headers)

    def send(self, status, text, *, body=True, code="", commit="", etag=""):
        self.send_response(status)
        named = (("X-Error-Code", code), ("X-Repo-Commit", commit), ("ETag", f'"{etag}"' if etag else ""))
        for name, value in named:
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if body:
            self.wfile.write(text)

    def log_message(self, *words):
        pass


@contextmanager
def small_hub():
    """A hub that listens on a free port of loopback."""
    hub = SmallHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
