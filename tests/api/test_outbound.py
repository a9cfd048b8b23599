"""Where a server's own requests go, as its operator has set it."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.api.asking import create, problem
from tests.support.receiver import Receiver


class Proxy:
    """An egress proxy that connects whatever it is asked for to one port of this machine."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.asked.append(head.decode().split("\r\n")[0])
            there = socket.create_connection(("127.0.0.1", self._port))
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            for source, sink in ((client, there), (there, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


def test_deliveries_through_a_proxy(start_server, receiver):
    proxy = Proxy(int(receiver.url.rpartition(":")[2].split("/")[0]))
    server = start_server(environment={"TASKADE_OUTBOUND_PROXY": proxy.url, "TASKADE_OUTBOUND_ALLOW": ""})
    with server.client() as client:
        url = "http://hooks.example/taskade"
        create(client, "webhooks", url=url, events=["project.created"])
        problem(client.post("/v1/webhooks", json={"url": "http://127.0.0.1:8000/", "events": ["*"]}), 422)
        create(client, "projects", name="Through a proxy")
        (found,) = receiver.wait(1)
    proxy.close()
    assert proxy.asked == ["CONNECT hooks.example:80 HTTP/1.1"]
    assert found.event["data"]["name"] == "Through a proxy"


def test_nothing_inside_is_reached_unless_the_operator_says_so(start_server, receiver):
    with start_server(environment={"TASKADE_OUTBOUND_ALLOW": ""}).client() as client:
        for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost")):
            document = problem(client.post("/v1/webhooks", json={"url": url, "events": ["*"]}), 422)
            assert "TASKADE_OUTBOUND_ALLOW" in document["errors"][0]["detail"]
    with start_server("--outbound-allow", "127.0.0.1/32").client() as client:
        create(client, "webhooks", url=receiver.url, events=["project.created"])
        problem(client.post("/v1/webhooks", json={"url": "http://127.0.0.2/", "events": ["*"]}), 422)
        create(client, "projects", name="Inside")
        assert [found.event["data"]["name"] for found in receiver.wait(1)] == ["Inside"]
