"""`taskade listen` and `taskade events`: real processes, servers and receivers, and connections that really break."""

import json
import queue
import random
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import standardwebhooks
import trustme
from click.testing import CliRunner
from taskade_server.__main__ import main
from taskade_server.kit import webhook_signatures

from tests.api.asking import create, listed
from tests.support.cutting import cutter
from tests.support.processes import free_port
from tests.support.receiving import receiver
from tests.support.server import Server

SECONDS = 60


class Tool:
    """A `taskade` command that runs until it is told to end. What it prints can be waited for."""

    def __init__(self, url: str, key: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "taskade_server", *arguments, "--url", url, "--key", key],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.printed: queue.Queue[str] = queue.Queue()
        self.said: queue.Queue[str] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self._process.stdout, self.printed), (self._process.stderr, self.said))
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe, lines):
        for line in pipe:
            lines.put(line.rstrip("\n"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def line(self):
        return self.printed.get(timeout=SECONDS)

    def hears(self, words):
        """The next line on stderr with these words."""
        while words not in (line := self.said.get(timeout=SECONDS)):
            pass
        return line

    def interrupt(self):
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(SECONDS)

    def end(self):
        return self._process.wait(SECONDS)


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Iterator[Server]:
    """A server that a test may stop and kill; the tools see no difference between databases."""
    server = Server(tmp_path_factory.mktemp("listen") / "data", "", "--dev").start()
    yield server
    server.stop()


@pytest.fixture
def api(own):
    with own.client() as client:
        yield client


@pytest.fixture
def project(api):
    return create(api, "projects", name="A project")["id"]


def listening(url, key, to, *arguments):
    tool = Tool(url, key, "listen", "--forward-to", to, *arguments)
    tool.hears("Listening to")
    return tool


# ---- what is forwarded -----------------------------------------------------------------------------------------------


def test_events_arrive_as_a_webhook_would_send_them(own, api, project):
    """The same body and headers as those of a real webhook, verified by the library with the secret that is printed."""
    printed = CliRunner().invoke(main, ["listen", "--print-secret", "--key", own.key]).stdout.strip()
    with receiver() as real:
        hook = create(api, "webhooks", url=real.url, events=["task.*"], project_id=project)
        with (
            receiver() as here,
            listening(own.url, own.key, here.url, "--events", "task.*", "--project", project) as tool,
        ):
            assert printed in tool.hears("Signing with")
            task = create(api, "tasks", name="Ünïcode \u2028 1.0", estimate=2.0, project_id=project)["id"]
            api.post(f"/v1/tasks/{task}/complete")
            came, expected = here.wait(3), real.wait(3)
            lines = [tool.line() for _ in range(3)]
        api.delete(f"/v1/webhooks/{hook['id']}")
    assert [body for _, body in came] == [body for _, body in expected]
    for (headers, body), (model, _) in zip(came, expected, strict=True):
        assert set(headers) - {"host"} == set(model) - {"host"}
        for name in ("webhook-id", "x-taskade-event", "content-type", "user-agent"):
            assert headers[name] == model[name]
        standardwebhooks.Webhook(printed).verify(body, headers)
        assert webhook_signatures.verify_plain(headers["x-taskade-signature"], body, printed)
    assert [json.loads(body)["type"] for _, body in came] == ["task.created", "task.updated", "task.completed"]
    assert [line.split()[1] for line in lines] == ["task.created", "task.updated", "task.completed"]
    assert all("200 in " in line and line.endswith("thanks") for line in lines)


def test_what_the_receiver_says_is_shown(own, api, project):
    with receiver(lambda headers, body: (422, "I do not\nlike  that " + "x" * 500)) as here:
        with listening(own.url, own.key, here.url, "--project", project, "--json") as tool:
            create(api, "tasks", name="x", project_id=project)
            told = json.loads(tool.line())
        with listening(own.url, own.key, here.url, "--project", project) as tool:
            create(api, "tasks", name="y", project_id=project)
            line = tool.line()
    assert (told["status"], told["taken"], told["error"]) == (422, False, None)
    assert told["body"].startswith("I do not\nlike  that")
    assert "422 in" in line and "I do not like that xxx" in line and line.endswith("...") and len(line) < 320


def test_headers_and_secrets_of_ones_own(own, api, project):
    secret = "a secret of my own"
    options = ["--headers", "X-Test: 1", "--headers", "x-other:a b", "--secret", secret, "--project", project]
    with receiver() as here, listening(own.url, own.key, here.url, *options):
        create(api, "tasks", name="x", project_id=project)
        headers, body = here.wait(1)[0]
    assert (headers["x-test"], headers["x-other"]) == ("1", "a b")
    assert webhook_signatures.verify_plain(headers["x-taskade-signature"], body, secret)


def test_from_an_earlier_position_and_up_to_a_number(own, api, project):
    position = api.post("/v1/tasks", json={"name": "0", "project_id": project}).headers["commit-seq"].split(":")[1]
    for number in "123":
        create(api, "tasks", name=number, project_id=project)
    with receiver() as here, listening(own.url, own.key, here.url, "--since", position, "--limit", "2") as tool:
        assert tool.end() == 0
        assert tool.hears("Forwarded") == "Forwarded 2 events: 2 taken."
    assert [json.loads(body)["data"]["name"] for _, body in here.taken] == ["1", "2"]


def test_interrupted_it_says_what_it_did(own, api, project):
    answers = iter([(200, ""), (500, "")])
    options = ["--project", project]
    with receiver(lambda *_: next(answers)) as here, listening(own.url, own.key, here.url, *options) as tool:
        for name in "ab":
            create(api, "tasks", name=name, project_id=project)
        for _ in "ab":
            tool.line()
        assert tool.interrupt() == 0
        assert tool.hears("Forwarded") == "Forwarded 2 events: 1 taken, 1 refused, 0 without an answer."


def test_a_certificate_that_nobody_knows(own, api, project):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    options = ["--project", project, "--since", "0", "--limit", "1"]
    with receiver(tls=context) as here:
        with listening(own.url, own.key, here.url, *options) as tool:
            assert "not delivered: its certificate is not valid" in tool.line()
        with listening(own.url, own.key, here.url, *options, "--skip-verify") as tool:
            assert "200 in" in tool.line()


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_receiver_that_is_away_misses_what_happens_meanwhile(own, api, project):
    port = free_port()
    with listening(own.url, own.key, f"127.0.0.1:{port}", "--project", project) as tool:
        create(api, "tasks", name="a", project_id=project)
        assert "not delivered: nothing listens there" in tool.line()
        with receiver(port=port) as here:
            create(api, "tasks", name="b", project_id=project)
            _, body = here.wait(1)[0]
            assert "200 in" in tool.line()
    assert json.loads(body)["data"]["name"] == "b"


def test_servers_that_stop_and_die(tmp_path):
    """What happens while nobody listens comes afterwards: each event once, in order."""
    own, names = Server(tmp_path / "data").start(), list[str]()
    with own.client() as api:
        project = create(api, "projects", name="A project")["id"]
        _stop_and_die(own, api, project, names)
    own.stop()


def _stop_and_die(own, api, project, names):

    def tasks(count):
        for _ in range(count):
            names.append(str(len(names)))
            create(api, "tasks", name=names[-1], project_id=project)

    with receiver() as here, listening(own.url, own.key, here.url, "--project", project) as tool:
        tasks(3)
        here.wait(3)
        own.restart()
        tasks(3)
        here.wait(6)
        own.kill()
        tool.hears("Trying again")
        own.start()
        tasks(3)
        here.wait(9)
        seqs = [json.loads(body)["seq"] for _, body in here.taken]
    assert [json.loads(body)["data"]["name"] for _, body in here.taken] == names
    assert seqs == sorted(set(seqs))


def test_connections_that_break_anywhere(own, api, project):
    """None lost, none twice, and each knows the one before it."""
    source, count = random.Random(4), 120
    with receiver() as here, cutter(own.port, iter(lambda: source.randrange(1_000, 40_000), 0)) as way:
        with listening(way.url, own.key, here.url, "--project", project):
            for start in range(0, count, 20):
                tasks = [{"name": str(number)} for number in range(start, start + 20)]
                assert api.post("/v1/tasks/bulk", json={"tasks": tasks, "project_id": project}).status_code == 201
            bodies = [json.loads(body) for _, body in here.wait(count)]
        assert way.cuts > 3
    assert [body["data"]["name"] for body in bodies] == [str(number) for number in range(count)]
    assert [body["previous_seq"] for body in bodies] == [None, *(body["seq"] for body in bodies[:-1])]


def test_a_key_that_is_revoked_meanwhile(own, api, project):
    key = create(api, "api-keys", name="for a moment")
    with receiver() as here, listening(own.url, key["secret"], here.url) as tool:
        api.delete(f"/v1/api-keys/{key['id']}")
        assert tool.end() == 1
        assert "revoked" in tool.hears("Error")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://127.0.0.1:1"}, "nothing listens there"),
        ({"key": "tsk_1_2"}, "does not take the key"),
        ({"arguments": ["--events", "task.complete"]}, 'Did you mean "task.completed"'),
        ({"arguments": ["--workspace", "ws_0"]}, "There is no workspace"),
        ({"arguments": ["--headers", "nothing"]}, "NAME:VALUE"),
        ({"arguments": ["--secret", "short"]}, "8 to 256"),
        ({"to": "ftp://127.0.0.1"}, "--forward-to is an address"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_listened_to(own, options, words):
    arguments = ["listen", "--forward-to", options.get("to", "127.0.0.1:1"), *options.get("arguments", [])]
    with Tool(options.get("url", own.url), options.get("key", own.key), *arguments) as tool:
        assert tool.end() == 1
        assert words in tool.hears("Error")
        assert tool.printed.empty()


def test_a_position_that_the_log_has_not_reached_is_told(own):
    with Tool(own.url, own.key, "listen", "--forward-to", "127.0.0.1:1", "--since", "99999999") as tool:
        assert "ends at" in tool.hears("The log of")
        tool.interrupt()


# ---- events ----------------------------------------------------------------------------------------------------------


def command(own, *arguments):
    done = CliRunner().invoke(main, [*arguments, "--url", own.url, "--key", own.key])
    return done.exit_code, done.stdout, done.stderr


def test_tail(own, api, project):
    create(api, "tasks", name="Two\n  lines", project_id=project)
    options = ["--types", "task.created", "--project", project, "--since", "0", "--limit", "1"]
    status, printed, _ = command(own, "events", "tail", *options)
    assert status == 0
    assert printed.split()[2] == "task.created"
    assert printed.endswith("Two lines\n")
    status, printed, _ = command(own, "events", "tail", *options, "--json")
    assert json.loads(printed)["data"]["name"] == "Two\n  lines"


def test_tail_follows(own, api, project):
    with Tool(own.url, own.key, "events", "tail", "--project", project, "--json", "--since", "0") as tool:
        assert json.loads(tool.line())["type"] == "project.created"
        create(api, "tasks", name="x", project_id=project)
        assert json.loads(tool.line())["type"] == "task.created"
        assert tool.interrupt() == 0


def test_resend(own, api, project):
    answers = iter([(200, "first"), (500, "no"), (200, "at last")])
    with receiver(lambda *_: next(answers)) as here:
        hook = create(api, "webhooks", url=here.url, events=["task.created"], project_id=project)["id"]
        create(api, "tasks", name="x", project_id=project)
        first, body = here.wait(1)[0]
        event = first["webhook-id"]
        status, printed, _ = command(own, "events", "resend", event, "--webhook", hook)
        assert (status, "500 in" in printed, printed.endswith("no\n")) == (1, True, True)
        status, printed, _ = command(own, "events", "resend", event, "--webhook", hook, "--json")
        told = json.loads(printed)
        assert (status, told["state"], told["attempt_log"][-1]["response_body"]) == (0, "succeeded", "at last")
        assert {headers["webhook-id"] for headers, _ in here.taken} == {event}
        assert {sent for _, sent in here.taken} == {body}
        delivery = listed(api, f"webhooks/{hook}/deliveries")[0]
        assert delivery["attempts"] == 3
        status, _, said = command(own, "events", "resend", "evt_0", "--webhook", hook)
        assert (status, "has no delivery evt_0" in said) == (1, True)
        api.delete(f"/v1/webhooks/{hook}")
    status, _, said = command(own, "events", "resend", event, "--webhook", "wh_0")
    assert (status, "There is no webhook wh_0" in said) == (1, True)
