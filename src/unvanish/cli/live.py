"""The live page of a run: a small server on the loopback address with the page and its rows."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"


def make_server(run: Any, port: int) -> ThreadingHTTPServer:
    """A server of a run's page at / and of its rows at /data.json, on loopback only."""

    class Handler(BaseHTTPRequestHandler):
        """Answers with the page or the rows; everything else is not found."""

        def do_GET(self) -> None:
            from unvanish.reports.run import data as run_data
            from unvanish.reports.run import html as run_html
            from unvanish.store import StoreError

            if self.headers.get("Host", "").split(":")[0] not in (HOST, "localhost"):
                self.send_error(403)  # a page of another site must not read it through its own host name
                return
            try:
                if self.path == "/":
                    self._send(run_html.render(run, live=True), "text/html; charset=utf-8")
                elif self.path == "/data.json":
                    rows = json.dumps(run_data.read_rows(run), allow_nan=False)
                    self._send(rows, "application/json")
                else:
                    self.send_error(404)
            except StoreError as error:
                self.send_error(503, str(error)[:200])

        def _send(self, text: str, kind: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Do not log single requests."""

    return ThreadingHTTPServer((HOST, port), Handler)


def serve(run: Any, port: int) -> None:
    """Serve until Ctrl-C; OSError if the port is in use."""
    try:
        server = make_server(run, port)
    except OSError as error:
        raise OSError(f"--live cannot use port {port} ({error.strerror}); try --port 0") from error
    with server:
        address = f"http://{HOST}:{server.server_address[1]}/"
        print(f"{address} shows the run while it grows; Ctrl-C ends it", file=sys.stderr, flush=True)
        server.serve_forever()
