"""Endpoints that misbehave in every way there is: each is told apart in the log of attempts, and none harms another.

Why real sockets that speak as they like: a library for servers would not let them.
"""

import socket
import ssl
import threading
import time

import pytest
import trustme

from tests.api.asking import create
from tests.support.processes import free_port
from tests.support.receiver import Receiver

PATIENCE = 180
HEAD = b"HTTP/1.1 200 OK\r\n"


class Rude:
    """Listens on a port of its own and does to each connection whatever it was made for, once it has been asked."""

    def __init__(self, manner, certificate=None):
        self._manner = manner
        self._tls = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(self._tls)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            try:
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                connection.recv(65536)
                self._manner(connection, self.ended)
            except OSError:
                pass

    def close(self):
        self.ended.set()
        self._listener.close()


def silent(connection, ended):
    ended.wait(PATIENCE)


def drip(connection, ended):
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    while not ended.wait(0.2):
        connection.sendall(b".")


def drip_head(connection, ended):
    for byte in HEAD + b"X-Long: " + b"a" * 1000:
        connection.sendall(bytes([byte]))
        if ended.wait(0.2):
            return


def endless(connection, ended):
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while not ended.is_set():
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def gigabytes(connection, ended):
    connection.sendall(HEAD + b"Content-Length: 9000000000\r\n\r\n")
    while not ended.is_set():
        connection.sendall(b"x" * 65536)


def hang_up(connection, ended):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def cut_off(connection, ended):
    connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nhalf")


def babble(connection, ended):
    connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")


def boast(connection, ended):
    connection.sendall(HEAD + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(100)))
    ended.wait(PATIENCE)


def dither(connection, ended):
    while not ended.is_set():
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")


def loop(connection, ended):
    connection.sendall(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /hook\r\nContent-Length: 0\r\n\r\n")


QUICK = {
    "hang up": (hang_up, "reset"),
    "cut off": (cut_off, "reset"),
    "babble": (babble, "malformed_response"),
    "boast": (boast, "too_large"),
    "dither": (dither, "malformed_response"),
    "redirect": (loop, "redirect"),
    "never end": (endless, None),
    "gigabytes": (gigabytes, None),
}
SLOW = {"silent": silent, "drip": drip, "drip head": drip_head}


@pytest.fixture
def rude():
    made = []

    def make(manner, certificate=None):
        made.append(Rude(manner, certificate))
        return f"{'https' if certificate else 'http'}://127.0.0.1:{made[-1].port}/hook"

    yield make
    for one in made:
        one.close()


@pytest.fixture
def first_attempts(api, a_project):
    """Makes a webhook for each URL beside a healthy one, changes something, and gives the first attempt of each."""
    hooks = []

    def run(urls):
        for url in urls.values():
            hook = {"url": url, "events": ["task.created"], "project_id": a_project["id"]}
            hooks.append(create(api, "webhooks", **hook)["id"])
        with Receiver() as healthy:
            hook = {"url": healthy.url, "events": ["task.created"], "project_id": a_project["id"]}
            hooks.append(create(api, "webhooks", **hook)["id"])
            create(api, "tasks", name="A task", project_id=a_project["id"])
            healthy.wait(1)
        return {name: attempt(hook) for name, hook in zip(urls, hooks, strict=False)}

    def attempt(hook):
        until = time.monotonic() + PATIENCE
        while True:
            (delivery,) = api.get(f"/v1/webhooks/{hook}/deliveries").json() or [None]
            if delivery and delivery["attempts"]:
                path = f"/v1/webhooks/{hook}/deliveries/{delivery['id']}"
                return api.get(path).json()["attempt_log"][0]
            assert time.monotonic() < until, delivery
            time.sleep(0.02)

    yield run
    for hook in hooks:
        api.delete(f"/v1/webhooks/{hook}")


def test_each_is_told_apart_and_none_harms_another(rude, first_attempts):
    with Receiver() as plain:
        urls = {name: rude(manner) for name, (manner, _) in QUICK.items()}
        urls |= {
            "nobody there": f"http://127.0.0.1:{free_port()}/",
            "no such name": "http://nobody.invalid/",
            "no encryption": plain.url.replace("http:", "https:"),
            "nobody vouches": rude(silent, trustme.CA().issue_cert("127.0.0.1")),
        }
        found = first_attempts(urls)
    expected = {name: error for name, (_, error) in QUICK.items()}
    expected |= {"nobody there": "connect_failed", "no such name": "dns_failure", "no encryption": "tls_failure"}
    expected["nobody vouches"] = "tls_failure"
    assert {name: attempt["error"] for name, attempt in found.items()} == expected
    assert "certificate verification failed" in found["nobody vouches"]["detail"]
    for attempt in found.values():
        assert (attempt["detail"] is None) == (attempt["error"] is None)
        assert len(attempt["response_body"]) <= 4096
        sent = {name.lower() for name, _ in attempt["request_headers"]}
        assert {"webhook-id", "webhook-signature"} <= sent or attempt["address"] is None


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_nobody_is_waited_for_longer_than_20_seconds(rude, first_attempts):
    found = first_attempts({name: rude(manner) for name, manner in SLOW.items()})
    assert {attempt["error"] for attempt in found.values()} == {"timeout"}
