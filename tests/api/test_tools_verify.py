"""`taskade webhooks verify`: correct receivers pass, and each way of being wrong is noticed by its name."""

import json
import time

import pytest
import standardwebhooks
from click.testing import CliRunner
from taskade_server.__main__ import main
from taskade_server.engine import events
from taskade_server.kit import webhook_signatures
from taskade_server.tools import conformance

from tests.support.processes import free_port
from tests.support.receiving import receiver, takes_all

SECRET = "a secret of my own"
STANDARD = standardwebhooks.Webhook(webhook_signatures.standard_form(SECRET))


@pytest.fixture(autouse=True)
def slowly(monkeypatch):
    """A busy machine is no reason to call a receiver slow."""
    monkeypatch.setattr(conformance, "SLOW_MS", 600_000)


def verify(url, *arguments, secret=SECRET):
    return CliRunner().invoke(main, ["webhooks", "verify", "--url", url, "--secret", secret, *arguments])


def findings(judge, *arguments):
    """The names of the cases that a receiver gets wrong, and the exit status."""
    with receiver(judge) as here:
        done = verify(here.url, "--json", *arguments)
    told = json.loads(done.stdout)
    wrong = [case["name"] for case in told["cases"] if case["passed"] is False]
    assert told["passed"] is not bool(wrong)
    return wrong, done.exit_code


# ---- receivers -------------------------------------------------------------------------------------------------------


def by_the_book(headers, body):
    """What the guide says."""
    try:
        webhook_signatures.verify(headers, body, [SECRET], now=time.time())
    except webhook_signatures.Unverified as error:
        return 401, str(error)
    return 204, ""


def by_the_library(headers, body):
    """The reference library of Standard Webhooks."""
    try:
        STANDARD.verify(body, dict(headers))
    except (standardwebhooks.WebhookVerificationError, ValueError) as error:
        return 400, str(error)
    return 200, ""


def by_the_plain_header(headers, body):
    """A handler that has only the parsed body, and looks at one header."""
    text = json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")).encode()
    right = webhook_signatures.verify_plain(headers.get("x-taskade-signature", ""), text, SECRET)
    return (200, "") if right else (401, "")


def fussy(headers, body):
    """Correct, but fails for what it does not know."""
    status, text = by_the_book(headers, body)
    return (status, text) if status > 400 or json.loads(body)["type"] in events.catalogue() else (422, "what is this?")


def forgetful():
    """Correct, but takes an event only once, and fails the second time."""
    seen = set()

    def judge(headers, body):
        status, text = by_the_book(headers, body)
        if status < 300 and headers["webhook-id"] in seen:
            return 409, "again?"
        seen.add(headers.get("webhook-id"))
        return status, text

    return judge


def first_signature_only(headers, body):
    """Looks at one signature of several."""
    if "webhook-signature" in headers:
        headers = {**headers, "webhook-signature": headers["webhook-signature"].split(" ")[0]}
    return by_the_book(headers, body)


def small(headers, body):
    """Takes 100 KB, as some frameworks do."""
    return (413, "") if len(body) > 100_000 else by_the_book(headers, body)


def timeless(headers, body):
    """Does not look at the time."""
    moment = int(headers.get("webhook-timestamp", "0"))
    try:
        webhook_signatures.verify(headers, body, [SECRET], now=moment)
    except webhook_signatures.Unverified:
        return 401, ""
    return 200, ""


def broken(headers, body):
    """Fails for whatever is not signed, instead of refusing it."""
    status, text = by_the_book(headers, body)
    return (500, "oops") if status == 401 else (status, text)


# ---- what is found ---------------------------------------------------------------------------------------------------

FORGERIES = ["flipped byte", "bad signature", "no signature"]
REPLAYS = ["stale timestamp", "future timestamp", "wrong id"]


@pytest.mark.parametrize("judge", [by_the_book, by_the_library], ids=lambda judge: judge.__name__)
@pytest.mark.parametrize("kind", ["task.completed", "comment.created", "project.purged", "member.removed"])
def test_correct_receivers_pass(judge, kind):
    assert findings(judge, "--event", kind) == ([], 0)


def test_a_plain_receiver_passes_what_it_can_know():
    assert findings(by_the_plain_header, "--plain") == ([], 0)
    wrong, status = findings(by_the_plain_header)
    assert (wrong, status) == (["new secret first", *REPLAYS], 1)


@pytest.mark.parametrize(
    ("judge", "wrong"),
    [
        (takes_all, [*FORGERIES, *REPLAYS]),
        (fussy, ["unknown type"]),
        (forgetful(), ["duplicate"]),
        (first_signature_only, ["new secret first", "unknown signature"]),
        (small, ["large body"]),
        (timeless, ["stale timestamp", "future timestamp"]),
        (broken, [*FORGERIES, *REPLAYS]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_fault_has_its_name(judge, wrong):
    assert findings(judge) == (wrong, 1)


def test_what_people_read():
    with receiver(small) as here:
        done = verify(here.url)
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert lines[-1] == f"{len(lines) - 1} deliveries, 1 answered wrongly."
    (failed,) = [line for line in lines if line.startswith("FAIL")]
    assert "large body" in failed and "413" in failed and "not 2xx" in failed and "100 KB" in failed


def test_what_comes_out_of_order_is_about_one_object():
    with receiver(by_the_book) as here:
        verify(here.url)
    bodies = [json.loads(body) for _, body in here.taken[:4]]
    assert bodies[0] == bodies[1], "the duplicate"
    assert bodies[2]["seq"] > bodies[3]["seq"]
    assert bodies[2]["data"]["id"] == bodies[3]["data"]["id"]


def test_it_sends_nowhere_else():
    for url, words in (
        ("http://example.com/hooks", "--yes"),
        ("http://localhost.example.com/hooks", "--yes"),
        ("http://127.0.0.1.example.com/hooks", "--yes"),
        (f"http://127.0.0.1:{free_port()}", "nothing listens there"),
        ("ftp://127.0.0.1", "an address such as"),
    ):
        done = verify(url)
        assert (done.exit_code, done.stdout) == (1, "")
        assert words in done.stderr

    def away(headers, body):
        return 302, ""

    wrong, status = findings(away)
    assert status == 1 and "good" in wrong, "a redirect is no answer, and is not followed"


def test_secrets_and_events_that_are_none():
    assert "8 to 256" in verify("http://127.0.0.1:1", secret="short").stderr
    assert 'Did you mean "task.completed"' in verify("http://127.0.0.1:1", "--event", "task.complete").stderr
