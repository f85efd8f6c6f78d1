"""A Hugging Face hub of a few datasets on this machine, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest

_API = re.compile(r"/api/datasets/(?P<name>[^/]+/[^/]+)(/(?P<what>[a-z-]+)/(?P<rest>.+))?")
_FILE = re.compile(r"/datasets/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class FakeHub:
    """What is on it, and what was asked of it.

    Attributes:
        commits: (dataset, commit) → path → bytes; the last commit of a dataset is its ``main``.
        served: (method, path, bytes sent) of every file that was asked for.
        broken: files that end in this cannot be read any more.
        patience: how many requests for files are answered before none is; None for all.
    """

    commits: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    served: list[tuple[str, str, int]] = field(default_factory=list)
    broken: str = ""
    patience: int | None = None

    def push(self, name: str, files: dict[str, bytes]) -> str:
        """A new commit of a dataset."""
        commit = hashlib.sha1(repr((name, sorted(files.items()))).encode()).hexdigest()
        self.commits[name, commit] = files
        return commit

    def bytes_of(self, suffix: str) -> list[int]:
        """Bytes sent of files with this suffix, one number a request."""
        return [size for how, path, size in self.served if how == "GET" and path.endswith(suffix)]

    def find(self, name: str, revision: str | None) -> str | None:
        """The commit that a revision means."""
        known = [commit for own, commit in self.commits if own == name]
        return (
            known[-1]
            if known and revision in (None, "main")
            else (revision if revision in known else None)
        )


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            where = unquote(urlsplit(self.path).path)
            if found := _FILE.fullmatch(where):
                self._file(found["name"], found["revision"], found["path"])
            elif found := _API.fullmatch(where):
                self._api(found["name"], found["what"], found["rest"] or "")
            else:
                self._answer(404, b"")

        def _api(self, name: str, what: str | None, rest: str) -> None:
            revision, _, folder = rest.partition("/")
            commit = hub.find(name, revision or None)
            if commit is None:
                unknown = "RevisionNotFound" if hub.find(name, None) else "RepoNotFound"
                self._answer(404, b"", {"X-Error-Code": unknown})
            elif what == "tree":
                self._tree(hub.commits[name, commit], folder)
            else:
                about = {"id": name, "sha": commit, "tags": [], "siblings": []}
                self._answer(200, json.dumps(about).encode())

        def _tree(self, files: dict[str, bytes], folder: str) -> None:
            recursive = "recursive=True" in self.path or "recursive=true" in self.path
            entries: dict[str, dict[str, object]] = {}
            for path, data in files.items():
                parents = [str(parent) for parent in PurePosixPath(path).parents][:-1]
                for parent in parents:
                    entries[parent] = {"type": "directory", "oid": "0", "size": 0, "path": parent}
                entries[path] = {"type": "file", "oid": "0", "size": len(data), "path": path}
            under = {
                path: entry
                for path, entry in entries.items()
                if (not folder or path.startswith(f"{folder}/"))
                and (recursive or str(PurePosixPath(path).parent) == (folder or "."))
            }
            if folder and not under:
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            else:
                self._answer(200, json.dumps(list(under.values())).encode())

        def _file(self, name: str, revision: str, path: str) -> None:
            commit = hub.find(name, revision)
            data = hub.commits.get((name, commit or ""), {}).get(path)
            if data is None:
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            if hub.patience is not None and self.command == "GET":
                hub.patience -= 1
            if (hub.broken and path.endswith(hub.broken)) or (hub.patience or 0) < 0:
                self._answer(500, b"")
                return
            headers = {
                "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
                "X-Repo-Commit": str(commit),
                "Accept-Ranges": "bytes",
            }
            code = 200
            if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                code, data = 206, data[first : last + 1]
            hub.served.append((self.command, path, len(data)))
            self._answer(code, data, headers)

        def _answer(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub, to which the libraries go instead; caches are empty too."""
    import datasets  # here, since most tests of this folder need none of the seconds it takes
    import huggingface_hub

    made = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    # Every later try comes at once.
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)
    yield made
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
    huggingface_hub.HfFileSystem.clear_instance_cache()
