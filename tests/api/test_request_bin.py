"""The request bin of development mode: it keeps what comes, fails as it is told to, and is for this machine only."""

import asyncio
import json
import re
import time

import httpx2
import pytest
from taskade_server.http.pages import request_bin, request_bin_page
from taskade_server.kit import webhook_signatures

from tests.api.asking import codes, create, problem
from tests.support.server import Server

SECRET = "a secret of my own"


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """A server in development mode; one database is enough, because a bin touches none."""
    server = Server(tmp_path_factory.mktemp("dev") / "data", "", "--dev").start()
    yield server
    server.stop()


@pytest.fixture
def http(dev):
    with httpx2.Client(base_url=dev.url, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def a_bin(request, http):
    return "/dev/bin/" + re.sub(r"\W+", "-", request.node.name)[-60:]


def kept(http, path):
    return http.get(path).json()["requests"]


def test_it_keeps_what_came(http, a_bin):
    sent = http.post(f"{a_bin}?status=202", content=b'{"a":"\xc3\xbc"}', headers={"x-mine": "1"})
    assert (sent.status_code, sent.json()["taken"]) == (202, 1)
    (one,) = kept(http, a_bin)
    assert (one["method"], one["target"], one["body"], one["size"]) == ("POST", f"{a_bin}?status=202", '{"a":"ü"}', 10)
    assert (one["headers"]["x-mine"], one["answered"], one["verified"]) == ("1", "202", None)


def test_it_can_be_emptied_and_holds_only_the_last_ones(http, a_bin):
    for number in range(request_bin.MAX_REQUESTS + 5):
        http.put(a_bin, content=str(number))
    found = http.get(a_bin).json()
    assert (found["total"], len(found["requests"])) == (request_bin.MAX_REQUESTS + 5, request_bin.MAX_REQUESTS)
    assert found["requests"][0]["body"] == "5"
    assert http.delete(a_bin).status_code == 204
    assert kept(http, a_bin) == []


def test_large_bodies_are_cut_and_larger_ones_refused(http, a_bin):
    http.post(a_bin, content=b"x" * (request_bin.KEPT_BODY + 1))
    (one,) = kept(http, a_bin)
    assert (len(one["body"]), one["size"]) == (request_bin.KEPT_BODY, request_bin.KEPT_BODY + 1)
    assert "the first" in http.get(a_bin, headers={"accept": "text/html"}).text
    assert http.post(a_bin, content=b"x" * (request_bin.MAX_BODY + 1)).status_code == 413


def test_waiting_for_what_comes(http, a_bin, dev):
    async def run():
        async with httpx2.AsyncClient(base_url=dev.url, timeout=20, trust_env=False) as client:
            waiting = asyncio.create_task(client.get(a_bin, params={"count": 2, "wait": 15}))
            for _ in range(2):
                await asyncio.sleep(0.05)
                await client.post(a_bin)
            return (await waiting).json()

    assert asyncio.run(run())["total"] == 2
    assert http.get(a_bin, params={"count": 3, "wait": 0.1}).json()["total"] == 2


# ---- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 301, 404, 410, 429, 500, 503])
def test_any_status(http, a_bin, status):
    answer = http.post(f"{a_bin}?status={status}&retry_after=7")
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == ("7" if status >= 400 else None)


def test_the_first_attempts_at_each_message_fail(http, a_bin):
    def attempts(name):
        return [http.post(f"{a_bin}?fail=2&status=500", headers=name).status_code for _ in range(4)]

    http.post(a_bin)
    assert attempts({}) == [500, 500, 200, 200]
    assert attempts({"webhook-id": "evt_1"}) == [500, 500, 200, 200]
    assert attempts({"webhook-id": "evt_2"}) == [500, 500, 200, 200]
    assert http.post(f"{a_bin}?fail=1", headers={"webhook-id": "evt_3"}).status_code == 503


def test_a_delay(http, a_bin):
    with pytest.raises(httpx2.ReadTimeout):
        http.post(f"{a_bin}?delay=5", timeout=0.2)
    assert http.post(f"{a_bin}?delay=0.05").status_code == 200
    assert kept(http, a_bin)[1]["answered"] == "200 after 0.05 s"


def test_a_reset(http, a_bin):
    with pytest.raises(httpx2.RemoteProtocolError):
        http.post(f"{a_bin}?reset=1")
    with pytest.raises(httpx2.RemoteProtocolError):
        http.post(f"{a_bin}?reset=1&fail=1")
    assert http.post(f"{a_bin}?reset=1&fail=1").status_code == 200
    assert [item["answered"] for item in kept(http, a_bin)] == ["connection closed", "connection closed", "200"]


def test_a_dripping_a_large_and_a_redirecting_answer(http, a_bin):
    assert set(http.post(f"{a_bin}?drip=0.3").text.strip()) == {"."}
    assert len(http.post(f"{a_bin}?size=200000&status=500").content) == 200_000
    moved = http.post(f"{a_bin}?redirect=http://127.0.0.1:1/x")
    assert (moved.status_code, moved.headers["location"]) == (302, "http://127.0.0.1:1/x")


# ---- signatures ------------------------------------------------------------------------------------------------------


def signed(body: bytes, secret: str = SECRET, ago: int = 0) -> dict[str, str]:
    return webhook_signatures.headers("evt_1", int(time.time()) - ago, body, [secret])


@pytest.mark.parametrize(
    ("change", "sound", "words"),
    [
        ({}, True, "right"),
        ({"body": b'{"a":2}'}, False, "does not fit the body"),
        ({"secret": "another secret"}, False, "does not fit the body"),
        ({"ago": 3600}, False, "seconds ago"),
    ],
    ids=["right", "changed", "another secret", "stale"],
)
def test_the_verdict_with_a_given_secret(http, a_bin, change, sound, words):
    body = b'{"a":1}'
    headers = signed(body, change.get("secret", SECRET), change.get("ago", 0))
    http.post(a_bin, params={"secret": SECRET}, content=change.get("body", body), headers=headers)
    (one,) = kept(http, a_bin)
    assert one["verified"] is sound
    assert words in one["signature"]


def test_the_verdict_on_what_webhooks_send(dev, http, a_bin):
    """From the change of a task to the bin, past the rules for addresses, signed by both secrets of a rotation."""
    with dev.client() as api:
        body = {
            "url": f"{dev.url}{a_bin}?fail=1&retry_after=1&status=429",
            "events": ["task.created"],
            "secret": SECRET,
        }
        webhook = create(api, "webhooks", **body)
        create(api, "tasks", name="for the bin")
        (first,) = http.get(a_bin, params={"count": 1, "wait": 20}).json()["requests"]
        assert (first["answered"], first["verified"], first["signature"]) == ("429", True, "right")
        assert json.loads(first["body"])["data"]["name"] == "for the bin"
        rotated = api.post(f"/v1/webhooks/{webhook['id']}/rotate-secret", json={})
        assert rotated.status_code == 200
        api.patch(f"/v1/webhooks/{webhook['id']}", json={"url": f"{dev.url}{a_bin}"})
        create(api, "projects", name="so that something happens")
        second = http.get(a_bin, params={"count": 2, "wait": 20}).json()["requests"][-1]
        assert (second["answered"], second["verified"]) == ("200", True)
        assert second["headers"]["webhook-signature"].count("v1,") == 2
        api.delete(f"/v1/webhooks/{webhook['id']}")


def test_without_a_secret_there_is_no_verdict(http, a_bin):
    http.post(a_bin, content=b"{}", headers=signed(b"{}"))
    assert kept(http, a_bin)[0]["verified"] is None
    assert "?secret=" in kept(http, a_bin)[0]["signature"]


# ---- the page, and who may see it ------------------------------------------------------------------------------------


def test_the_page_shows_what_came_and_does_nothing_with_it(http, a_bin):
    evil = "<script>alert(1)</script>"
    http.post(a_bin, content=json.dumps({"name": evil}), headers={"x-evil": evil})
    page = http.get(a_bin, headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert evil not in page.text
    assert page.text.count("&lt;script&gt;alert(1)") == 2


def test_no_page_of_another_site_can_read_it(http, a_bin):
    foreign = http.get(a_bin, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers
    for name in ("evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "192.0.2.1"):
        rebound = http.get(a_bin, headers={"host": name})
        assert (rebound.status_code, rebound.json()["code"]) == (404, "not-found"), name
    assert http.get(a_bin, headers={"host": "localhost:8000"}).status_code == 200


PAGE = {"accept": "text/html"}


@pytest.mark.parametrize(
    "body",
    [
        "[" * 60_000,
        "[" * 900 + "1,1," * 15_000 + "1" + "]" * 900,
        '{"a":' * 300 + "1" + "}" * 300,
        json.dumps({"half": "x"}).replace("x", "\\ud800"),
        "[" + "1," * 8_000 + "1]",
        "9" * 5_000,
    ],
    ids=["deep", "deep and long", "deep objects", "half a character", "many lines", "a long number"],
)
def test_whatever_came_the_page_shows_it_within_bounds(http, a_bin, body):
    for _ in range(3):
        http.post(a_bin, content=body)
    page = http.get(a_bin, headers=PAGE)
    assert page.status_code == 200
    assert page.text.count("<article>") == 3 and ("half" not in body or "half" in page.text)
    assert len(page.content) <= 3 * (max(len(body), request_bin_page.MAX_GROWN) * 6 + 10_000)
    assert kept(http, a_bin)[0]["body"] == body[: request_bin.KEPT_BODY]


def test_a_page_is_bounded_as_a_whole(http, a_bin):
    for _ in range(40):
        http.post(a_bin, content=b"x" * request_bin.KEPT_BODY)
    page = http.get(a_bin, headers=PAGE)
    assert len(page.content) <= request_bin_page.MAX_PAGE + 100_000
    assert re.search(r"40 requests so far, the last \d\d below", page.text)


def test_all_bins_together_are_bounded(monkeypatch):
    monkeypatch.setattr(request_bin, "MAX_KEPT", 10_000)
    found = request_bin.RequestBin(0, lambda path: asyncio.sleep(0, []))

    def add(name):
        box = found._bin(name)
        box.add(request_bin.Captured(1, "", "POST", "/", [], "x" * 500, 500))
        found._make_room(name)

    for number in range(200):
        add(f"bin-{number % 7}")
    boxes = found._bins.values()
    assert sum(box.kept for box in boxes) == sum(one.kept for box in boxes for one in box.taken) <= 10_000
    assert len(found._bin("bin-3").taken) >= 1, "what came last is there"


def test_what_a_page_of_another_site_wants_is_refused(http, a_bin):
    """It could otherwise fill bins, or show them in a frame; a person who follows a link may."""
    posted = {"content-type": "text/plain"}
    for headers in (
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ):
        for method in ("POST", "DELETE"):
            refused = http.request(method, a_bin, headers=posted | headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), headers
    navigation = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert http.get(a_bin, headers=PAGE | navigation | {"sec-fetch-dest": "iframe"}).status_code == 403
    page = http.get(a_bin, headers=PAGE | navigation | {"sec-fetch-dest": "document"})
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    own = {"sec-fetch-site": "same-origin", "origin": str(http.base_url).rstrip("/")}
    assert http.post(a_bin, headers=own).status_code == 200
    assert len(kept(http, a_bin)) == 1


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("stauts=500", "stauts"),
        ("status=99", "status"),
        ("delay=-1", "delay"),
        ("fail=x", "fail"),
        ("delay=1e3", "delay"),
        ("size=99999999", "size"),
        ("status=", "status"),
    ],
)
def test_what_it_does_not_understand_it_says(http, a_bin, query, place):
    answer = http.post(f"{a_bin}?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameter"] == place
    assert kept(http, a_bin) == []


def test_other_methods_and_names(http, a_bin):
    assert http.request("TRACE", a_bin).status_code == 405
    for name in ("", "a/b", "a%00", "x" * 65, "%3Cb%3E"):
        assert http.post(f"/dev/bin/{name}").status_code == 404


def test_without_development_mode_there_is_none(api):
    problem(api.post("/v1/dev/bin/x"), 404)
    answer = problem(api.get("/dev/bin/x"), 404)
    assert codes(answer) == []


def test_bins_are_few(dev, http):
    for number in range(request_bin.MAX_BINS + 1):
        http.post(f"/dev/bin/few-{number}", content=b"x")
    assert kept(http, "/dev/bin/few-0") == []
    assert len(kept(http, "/dev/bin/few-1")) == 1


def test_without_development_mode_it_is_told_what_turns_it_on(api):
    for method in ("GET", "POST", "DELETE"):
        assert "`taskade serve --dev`" in problem(api.request(method, "/dev/bin/mine"), 404)["detail"]


def test_where_it_may_listen(tmp_path):
    def refusal(*arguments):
        with pytest.raises(RuntimeError) as error:
            Server(tmp_path / "x").command("serve", "--port", "0", *arguments)
        return str(error.value)

    assert "--dev anywhere" in refusal("--dev", "--host", "0.0.0.0")
    assert "--dev anywhere" in refusal("--dev", "--host", "example.com")
    assert "one worker" in refusal("--dev", "--workers", "2", "--database-url", "postgresql://127.0.0.1/x")
