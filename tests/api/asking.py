"""Words in which the API tests ask and judge: a POST that has to succeed, an error that has to be told well.

Why one judge for all errors: what makes a problem document useful (type, place, request_id) is the same for
every one of them, and a test that looked only at the status would let the rest rot.
"""

import json
import socket
import time
from typing import Any, NamedTuple

import httpx2
from taskade_server.kit import time as moments


def create(client: httpx2.Client, resource: str, **body: Any) -> Any:
    """The answer to a POST that is expected to succeed."""
    response = client.post(f"/v1/{resource}", json=body)
    assert response.status_code == 201, response.text
    return response.json()


def expire(client: httpx2.Client, key_id: str, theirs: httpx2.Client) -> httpx2.Response:
    """Let a key end, and return the first answer that its holder gets after that.

    The end has to be in the future when the server reads it, which is soon only on a machine that is not busy.
    """
    for ahead in (200, 2000, 20_000):
        end = moments.format_ms(moments.now_ms() + ahead)
        if client.patch(f"/v1/api-keys/{key_id}", json={"expires_at": end}).status_code == 200:
            break
    until = time.monotonic() + 120
    while (answer := theirs.get("/v1/users/me")).status_code == 200:
        assert time.monotonic() < until, "it never ends"
        time.sleep(0.05)
    return answer


def hand_over(client: httpx2.Client, workspace: str, heir: str) -> None:
    """Leave a workspace, all its members, to somebody else alone.

    Lists of somebody who is in more than a hundred have no validator, and the tests of a process share their people.
    """
    client.post(f"/v1/workspaces/{workspace}/restore")
    create(client, f"workspaces/{workspace}/members", user=heir, role="owner")
    members = [member["user"] for member in listed(client, f"workspaces/{workspace}/members")]
    me = client.get("/v1/users/me").json()["id"]
    for user in [*(user for user in members if user not in (heir, me)), me]:
        gone = client.delete(f"/v1/workspaces/{workspace}/members/{user}")
        assert gone.status_code == 204, gone.text


def names(client: httpx2.Client, path: str, **params: Any) -> list[str]:
    """The names of a list that is expected to come."""
    return [item["name"] for item in listed(client, path, **params)]


def listed(client: httpx2.Client, path: str, **params: Any) -> Any:
    """The answer to a list request that is expected to succeed."""
    response = client.get(f"/v1/{path}", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def pages(client: httpx2.Client, path: str, **params: Any) -> list[Any]:
    """Every page of a list, by following the Link header as it is."""
    response = client.get(f"/v1/{path}", params=params)
    found = []
    while True:
        assert response.status_code == 200, response.text
        found.append(response.json())
        link = response.headers.get("link")
        if link is None:
            return found
        address, _, relation = link.partition(">; ")
        assert relation == 'rel="next"'
        response = client.get(address.removeprefix("<"))


def everything(client: httpx2.Client, path: str, **params: Any) -> list[Any]:
    """The whole of a list, however many pages it has. The log of a shared server may be long."""
    return [item for page in pages(client, path, **params) for item in page]


def problem(response: httpx2.Response, status: int, code: str = "") -> Any:
    """The problem document of an answer, after a look at what every one of them must have."""
    assert response.status_code == status, f"{response.status_code}: {response.text}"
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["type"] == f"/problems/{document['code']}"
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["title"] and document["detail"]
    if code:
        assert document["code"] == code, document
    return document


def places(document: Any) -> list[str]:
    """Where a problem's faults are, in order."""
    return [error.get("pointer", error.get("parameter")) for error in document.get("errors", [])]


def codes(document: Any) -> list[str]:
    """What a problem's faults are, in order."""
    return [error["code"] for error in document.get("errors", [])]


class Answer(NamedTuple):
    """An answer read from a bare connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def talk(port: int, *parts: bytes, finish: bool = False) -> Answer | None:
    """Send bytes as they are and read one answer; None when the server just hangs up.

    `finish` closes our side after the last part, as a client does that gives up.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may have answered and closed before it took everything
        if finish:
            connection.shutdown(socket.SHUT_WR)
        return _read(connection)


def _read(connection: socket.socket) -> Answer | None:
    received = b""
    while True:
        head, found, body = received.partition(b"\r\n\r\n")
        if found:
            status, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if len(body) >= int(headers.get("content-length", "0")):
                return Answer(int(status.split(" ")[1]), headers, body)
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            return None
        received += more
