"""A hub on this machine: what huggingface_hub's client asks of it, over real sockets, with faults on demand.

Large files (LFS) are not served by the hub itself: it leads to a CDN, which is this server under its other name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Fault:
    """What goes wrong with one request for a file's content."""

    kind: str  # cut: the connection ends; reset: it is reset; stall: nothing more comes; status: an answer
    after: int = 0  # bytes of the answer
    status: int = 0
    code: str = ""  # the hub's X-Error-Code


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]

    @property
    def content_of(self) -> str | None:
        """The file whose content was asked for, at the place that sends it."""
        return self.headers.get("served")


@dataclass
class Hub:
    """The state of the server: what there is, what is to go wrong, what was asked."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)  # repository -> path -> content
    sent: dict[str, bytes] = field(default_factory=dict)  # path -> what is sent instead
    large: int = 1000  # bytes from which on a file is in LFS
    faults: dict[str, list[Fault]] = field(default_factory=dict)  # path -> one a request, in turn
    listing_fault: Fault | None = None
    ranges: bool = True
    asked: list[Asked] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def contents(self) -> list[tuple[str, str | None]]:
        """The requests for content, in order: the file and the range."""
        return [(ask.content_of, ask.headers.get("range")) for ask in self.asked if ask.content_of]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.asked = Asked("GET", self.path, headers)
        self.hub.asked.append(self.asked)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        repository = "/".join(parts[2:4]) if parts[0] == "api" else "/".join(parts[1:3])
        if parts[0] == "cdn":
            self.send_content("/".join(parts[3:]), self.hub.files["/".join(parts[1:3])]["/".join(parts[3:])])
        elif parts[0] == "api":
            self.send_listing(repository, parts[5] if len(parts) > 5 else "main")
        else:
            self.send_file(repository, "/".join(parts[5:]))

    def send_listing(self, repository: str, revision: str) -> None:
        fault = self.hub.listing_fault
        if fault:
            self.refuse(fault)
        elif repository not in self.hub.files:
            self.refuse(Fault("status", status=404, code="RepoNotFound"))
        elif revision == "nowhere":
            self.refuse(Fault("status", status=404, code="RevisionNotFound"))
        else:
            siblings = [self.sibling(path, data) for path, data in self.hub.files[repository].items()]
            found = {
                "id": repository,
                "sha": COMMIT,
                "siblings": siblings,
                "private": False,
                "downloads": 0,
                "tags": [],
                "likes": 0,
            }
            self.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def sibling(self, path: str, data: bytes) -> dict:
        found = {"rfilename": path, "size": len(data), "blobId": blob_id(data)}
        if len(data) >= self.hub.large:
            digest = hashlib.sha256(data).hexdigest()
            found |= {"blobId": "f" * 40, "lfs": {"size": len(data), "sha256": digest, "pointerSize": 134}}
        return found

    def send_file(self, repository: str, path: str) -> None:
        data = self.hub.files[repository].get(path)
        if data is None:
            self.refuse(Fault("status", status=404, code="EntryNotFound"))
        elif len(data) >= self.hub.large:
            self.answer(
                302,
                b"",
                {"Location": f"http://localhost:{self.hub.port}/cdn/{repository}/{path}?signed", "X-Repo-Commit": COMMIT},
            )
        else:
            self.send_content(path, data)

    def send_content(self, path: str, data: bytes) -> None:
        self.asked.headers["served"] = path
        data = self.hub.sent.get(path, data)
        begin = 0
        if self.hub.ranges and (wanted := self.headers.get("Range")):
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        faults = self.hub.faults.get(path, [])
        fault = faults.pop(0) if faults else None
        if fault and fault.kind == "status":
            self.refuse(fault)
            return
        headers = {"ETag": f'"{blob_id(data)}"', "Accept-Ranges": "bytes"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        rest = data[begin:]
        self.start(206 if begin else 200, len(rest), headers)
        self.wfile.write(rest[: fault.after] if fault else rest)
        if fault:
            self.wfile.flush()
            self.fail(fault)

    def fail(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.kind == "stall":
            self.hub.stalled.set()
            self.hub.release.wait(60)
        elif fault.kind == "reset":
            threading.Event().wait(0.3)  # or the reset overtakes what was sent
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def refuse(self, fault: Fault) -> None:
        self.answer(fault.status, b"{}", {"X-Error-Code": fault.code} if fault.code else {})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.start(status, len(body), headers)
        self.wfile.write(body)

    def start(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        pass  # a client that goes away in the middle


@contextlib.contextmanager
def serving(hub: Hub, handler: type[Handler] = Handler):
    """Serve ``hub`` on a free port until the end of the block."""
    server = Server(("127.0.0.1", 0), type("Bound", (handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
