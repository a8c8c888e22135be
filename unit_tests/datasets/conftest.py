"""A server on this machine, for what downloads: it resumes, ignores ranges, or breaks off."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`, by name, and notes what was asked and how many bytes were sent.

    `server.ranges` says whether ranges are honoured, `server.cut` how many bytes are sent at most,
    `server.lengths` whether a length is announced, `server.totals` whether one comes with 416 (for
    a range behind the end), `server.refuses` whether all is answered so, and `server.shift` by how
    much the range that is sent misses the one that was asked for. `server.headers` are sent with
    every answer; an ETag or a date there is compared with If-Range unless `server.joins`, and
    `server.sends` is an address to which all are sent on.
    """

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Range"]))
        if self.server.sends:
            self.send_response(302)
            self.send_header("Location", self.server.sends)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        content = self.server.content.get(self.path.rpartition("/")[2])
        if content is None:
            return self.send_error(404)
        start = 0
        known = (None, *self.server.headers.values())
        same = self.server.joins or self.headers["If-Range"] in known
        if self.headers["Range"] and self.server.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
        if self.server.refuses or start >= len(content) > 0:
            return self.refuse(len(content))
        self.send_response(206 if start else 200)
        if start:
            first = start + self.server.shift
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if self.server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        sent = content[start:] if self.server.cut is None else content[start:][: self.server.cut]
        self.server.sent.append(len(sent))
        self.wfile.write(sent)

    def refuse(self, total):
        self.send_response(416)
        if self.server.totals:
            self.send_header("Content-Range", f"bytes */{total}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.cut, server.shift = {}, None, 0
        server.ranges = server.lengths = server.totals = True
        server.refuses, server.asked, server.sent = False, [], []
        server.headers, server.joins, server.sends = {}, False, None
        server.url = f"http://127.0.0.1:{server.server_port}/data"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
