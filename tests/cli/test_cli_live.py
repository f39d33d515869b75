"""The live page answers its own page only, runs no other script, and serves a few connections at a time."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time

import pytest

from unvanish.cli import live
from unvanish.store import Store, open_run


@pytest.fixture
def server(tmp_path):
    store = Store(tmp_path / "</script><script>alert(1)</script>"[:9], pause=0.01)
    store.describe(model="</script><script>alert(1)</script>\u2028")
    store.steps([{"step": 0, "wall": 0.0, "loss": 1.0, "finite": 1}])
    store.close()
    made = live.make_server(open_run(store.folder), 0)
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def ask(server, path="/", **headers):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("GET", path, skip_host=True)
    for key, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
        connection.putheader(key.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def test_the_page_has_a_policy_and_only_its_own_scripts(server):
    answer, body = ask(server)
    policy = answer.headers["Content-Security-Policy"]
    nonce = re.search(r"'nonce-([^']+)'", policy)[1]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    scripts = re.findall(r"<script[^>]*>", body)
    assert len(scripts) == 3 and all(f'nonce="{nonce}"' in script for script in scripts)
    assert "<script>alert" not in body and "\u2028" not in body
    assert nonce not in ask(server)[1]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/data.json"])
def test_other_sites_are_refused(server, headers, path):
    answer, body = ask(server, path, **headers)
    assert answer.status == 403 and body == ""


def test_rows_are_no_page(server):
    answer, body = ask(server, "/data.json")
    assert answer.status == 200 and body.startswith("{")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(server, "/../etc/passwd")[0].status == 404


def test_silent_connections_do_not_take_the_server(server, monkeypatch):
    monkeypatch.setattr(live.LiveHandler, "timeout", 0.5)
    address = server.server_address
    idle = [socket.create_connection(address) for _ in range(3 * live.CONNECTIONS)]
    begun = time.monotonic()
    assert threading.active_count() <= live.CONNECTIONS + 10
    while time.monotonic() - begun < 8:
        try:
            if ask(server, "/data.json")[0].status == 200:
                break
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
    else:
        pytest.fail("the server never answered again")
    for one in idle:
        one.close()


def test_a_request_is_small(server):
    with socket.create_connection(server.server_address) as one:
        one.sendall(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 414 " in one.recv(100)
    answer, _ = ask(server, "/" + "a" * 20_000)
    assert answer.status == 403
