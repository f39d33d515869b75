"""The live page of a run: a small server on the loopback address with the page and its rows.

Notable:
- It answers only to its own name and port, so another site cannot read it through a name of that site.
- The page may run its own scripts and no others, load nothing from elsewhere, and be framed by nobody.
- A connection is served for seconds, a few at a time; a request has a few kilobytes.
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
CONNECTIONS = 16  # at a time; more are closed at once
SECONDS = 10  # for a request to arrive, and for an answer to be taken
HEADERS = 100  # of a request
LETTERS = 8192  # of its first line
ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def write_policy(nonce: str) -> str:
    """The page's content security policy: scripts with this nonce, styles in the page, rows from here."""
    parts = (
        "default-src 'none'", f"script-src 'nonce-{nonce}'", "style-src 'unsafe-inline'",
        "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'",
        "frame-ancestors 'none'",
    )  # fmt: skip  # Vega interprets its expressions (run.js), so nothing needs 'unsafe-eval'
    return "; ".join(parts)


class LiveServer(ThreadingHTTPServer):
    """A server with a limited number of connections."""

    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.places = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, or close it if too many are open."""
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, then give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke."""


class LiveHandler(BaseHTTPRequestHandler):
    """Answers with the page or the rows of a run; everything else is not found."""

    timeout = SECONDS
    run: Any = None
    server_version, sys_version = "unvanish", ""

    def do_GET(self) -> None:
        """Answer a request."""
        from unvanish.store import StoreError

        if not self._is_ours():
            self._refuse(403)
            return
        try:
            self._answer()
        except StoreError:
            self._refuse(503)

    def _answer(self) -> None:
        from unvanish.reports.run import data as run_data
        from unvanish.reports.run import html as run_html

        if self.path == "/":
            nonce = secrets.token_urlsafe(16)
            page = run_html.render(self.run, live=True, nonce=nonce)
            self._send(page, "text/html; charset=utf-8", write_policy(nonce))
        elif self.path == "/data.json":
            self._send(json.dumps(run_data.read_rows(self.run), allow_nan=False), "application/json")
        else:
            self._refuse(404)

    def _is_ours(self) -> bool:
        """Whether a request names this server, and comes from no other site."""
        address: Any = self.server.server_address
        port = address[1]
        hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())
        origin = self.headers.get("Origin")
        return (
            self.headers.get_all("Host", []) in [[host] for host in hosts]
            and (origin is None or origin in {f"http://{host}" for host in hosts})
            and self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
            and len(self.headers) <= HEADERS
            and len(self.requestline) <= LETTERS
        )

    def _refuse(self, code: int) -> None:
        self._send("", "text/plain; charset=utf-8", code=code)

    def _send(self, text: str, kind: str, policy: str = "default-src 'none'", code: int = 200) -> None:
        body = text.encode()
        self.send_response(code)
        own = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": policy}
        for key, value in {**own, **ALWAYS, "Connection": "close"}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Do not log single requests."""


def make_server(run: Any, port: int) -> LiveServer:
    """A server of a run's page at / and of its rows at /data.json, on loopback only."""
    return LiveServer((HOST, port), type("RunHandler", (LiveHandler,), {"run": run}))


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
