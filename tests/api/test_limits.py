"""The limits as clients meet them: by key, by address, for batches, and across the processes of an installation.

Why servers of their own: a limit that is used up is in the way of every other test.
"""

import itertools
import time
from pathlib import Path

import httpx2
import pytest

from tests.api.asking import create, problem
from tests.support.listening import eventually
from tests.support.server import Server

ME = "/v1/users/me"


def budget(response: httpx2.Response) -> tuple[str, int]:
    """The policy that an answer names, and what is left of it."""
    name = response.headers["ratelimit-policy"].partition(";")[0].strip('"')
    return name, int(response.headers["x-ratelimit-remaining"])


def used_up(client: httpx2.Client, most: int) -> int:
    """How many requests a client gets before it is refused."""
    for count in itertools.count():
        if client.get(ME).status_code == 429:
            return count
        assert count <= most, "the limit was not kept"
    raise AssertionError


# ---- by address ------------------------------------------------------------------------------------------------------


def test_requests_without_a_key_are_counted_by_address(start_server):
    server = start_server("--anonymous-limit", "3/minute", rate_limit="100/minute")
    with server.client("") as nobody, server.client() as client:
        for left in (2, 1, 0):
            refused = nobody.get(ME)
            problem(refused, 401, "unauthenticated")
            assert budget(refused) == ("anonymous", left)
        refused = nobody.get("/v1/tasks")
        document = problem(refused, 429, "quota-exceeded")
        assert document["violated-policies"] == ["anonymous"]
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        problem(nobody.get("/openapi.json"), 429)
        assert nobody.get("/health").status_code == nobody.get("/ready").status_code == 200
        assert budget(client.get(ME)) == ("default", 99), "a key has a budget of its own"


def test_who_guesses_keys_is_refused_and_who_is_known_is_not(start_server):
    server = start_server("--login-limit", "3/minute", rate_limit="100/minute")
    later = server.create_key("not used yet")
    with server.client() as known, server.client("tsk_wrong") as guesser, server.client(later) as unknown:
        assert known.get(ME).status_code == 200
        for _ in range(3):
            problem(guesser.get(ME), 401, "unauthenticated")
        refused = guesser.get(ME)
        document = problem(refused, 429, "quota-exceeded")
        assert document["violated-policies"] == ["login"]
        problem(unknown.get(ME), 429)
        assert known.get(ME).status_code == 200
        # Changed rights make the server look at every key again.
        create(known, "workspaces", name="Another")
        assert known.get(ME).status_code == 200
        time.sleep(int(refused.headers["retry-after"]))
        assert unknown.get(ME).status_code == 200


def test_without_a_limit_of_keys_addresses_have_none_unless_it_is_said(server):
    with server.client("") as nobody, server.client("tsk_wrong") as guesser:
        for client in (nobody, guesser):
            assert {client.get(ME).status_code for _ in range(70)} == {401}


def test_behind_a_trusted_proxy_each_client_counts_for_itself(start_server):
    settings = {"TASKADE_ANONYMOUS_LIMIT": "1/minute", "TASKADE_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8"}
    server = start_server(environment=settings)
    with server.client("") as proxy, server.client() as owner:

        def ask(*hops: str) -> int:
            return int(proxy.get(ME, headers=[("X-Forwarded-For", hop) for hop in hops]).status_code)

        assert [ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.2")] == [401, 429, 401]
        assert ask("192.0.2.9, 192.0.2.2") == 429, "what the client says of itself is not believed"
        assert ask("192.0.2.9, 192.0.2.2", "10.1.2.3") == 429, "nor when there are more proxies, and more headers"
        assert [ask("2001:db8::1"), ask("2001:db8::2"), ask("2001:db8:0:1::1")] == [401, 429, 401]
        bound = create(owner, "api-keys", name="bound", allowed_ips=["192.0.2.0/24"])["secret"]
    with server.client(bound) as client:
        assert client.get(ME, headers={"X-Forwarded-For": "192.0.2.77"}).status_code == 200
        problem(client.get(ME, headers={"X-Forwarded-For": "198.51.100.1"}), 403)
        problem(client.get(ME), 403)


def times_said(server, words):
    """How often something is in the log, which is written a moment after it happens."""
    eventually(lambda: words in server.said())
    return server.said().count(words)


def test_an_untrusted_header_changes_nothing(start_server):
    server = start_server("--anonymous-limit", "2/minute")
    with server.client("") as client:
        answers = [client.get(ME, headers={"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert times_said(server, "TASKADE_TRUSTED_PROXIES") == 1


# ---- by key ----------------------------------------------------------------------------------------------------------


def test_a_burst_and_a_rate_above_the_common_one(start_server):
    server = start_server("--rate-burst", "3", "--max-rate-limit", "1000/minute", rate_limit="1/minute")
    with server.client() as client:
        fast = create(client, "api-keys", name="fast", rate_limit=600)["secret"]
        greedy = create(client, "api-keys", name="greedy", rate_limit=100_000)["secret"]
        assert used_up(client, 2) in (1, 2)
    for key, rate in ((fast, 600), (greedy, 1000)):
        with server.client(key) as client:
            answer = client.get(ME)
            assert answer.headers["ratelimit-policy"] == f'"default";q={rate};w=60'
            assert answer.headers["x-ratelimit-limit"] == "3"


def test_without_a_limit_a_key_may_have_one_of_its_own(server, api):
    key = create(api, "api-keys", name="modest", rate_limit=2)["secret"]
    assert "ratelimit" not in api.get(ME).headers
    with server.client(key) as client:
        assert used_up(client, 2) == 2


def test_a_batch_costs_its_operations_and_may_cost_more_than_the_burst(start_server):
    server = start_server(rate_limit="120/minute")
    reads = {"operations": [{"method": "GET", "path": "/tasks"}] * 130}
    with server.client() as client:
        answer = client.post("/v1/batch", json=reads)
        assert answer.status_code == 200, answer.text
        assert budget(answer) == ("default", 0)
        refused = client.post("/v1/batch", json={"operations": reads["operations"][:10]})
        problem(refused, 429)
    with server.client(server.create_key("another")) as client:
        assert client.get(ME).status_code == 200
        problem(client.post("/v1/batch", json=reads), 429)
        assert budget(client.get(ME))[1] >= 117, "a refused batch costs nothing"
        ten = client.post("/v1/batch", json={"operations": reads["operations"][:10]})
        assert ten.status_code == 200 and budget(ten)[1] <= 110


def test_waiting_as_told_is_enough_for_a_batch(start_server):
    server = start_server("--rate-burst", "5", rate_limit="300/minute")
    batch = {"operations": [{"method": "GET", "path": "/tasks"}] * 8}
    with server.client() as client:
        while client.get(ME).status_code == 200:
            pass
        refused = client.post("/v1/batch", json=batch)
        problem(refused, 429)
        time.sleep(int(refused.headers["retry-after"]))
        assert client.post("/v1/batch", json=batch).status_code == 200


def test_a_replay_costs_nothing(start_server):
    server = start_server(rate_limit="5/minute")
    with server.client() as client:
        for _ in range(8):
            answer = client.post("/v1/projects", json={"name": "Once"}, headers={"Idempotency-Key": "k"})
            assert answer.status_code == 201
        assert budget(client.get(ME))[1] >= 3


# ---- several processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def only_postgresql(database: str) -> None:
    if database != "postgresql":
        pytest.skip("SQLite has one process")


def test_processes_count_together(only_postgresql, start_server, valkey):
    server = start_server("--workers", "2", "--valkey-url", valkey.patient_url, rate_limit="30/minute")
    with httpx2.Client(trust_env=False) as first:
        first.get(server.url + "/health")
    codes = []
    for _ in range(40):
        # A new connection each time, so that both processes get some.
        with server.client() as client:
            codes.append(client.get(ME).status_code)
    # The seconds that this takes bring some back, but nowhere near the budget of a second process.
    assert codes[:30] == [200] * 30 and codes.count(200) < 40
    assert "counts rate limits for itself" not in server.said()


def test_servers_on_one_database_count_together(only_postgresql, start_server, valkey, tmp_path: Path):
    options = ("--valkey-url", valkey.patient_url, "--rate-burst", "10")
    one = start_server(*options, rate_limit="1/minute")
    other = Server(tmp_path / "data", one.database_url, *options, rate_limit="1/minute").start()
    try:
        with one.client() as here, other.client(one.key) as there:
            codes = [client.get(ME).status_code for client in [here, there] * 6]
            assert codes[:10] == [200] * 10 and codes.count(200) <= 11
    finally:
        other.stop()


def test_while_valkey_is_away_requests_are_answered_and_counted(only_postgresql, start_server, valkey):
    server = start_server("--valkey-url", valkey.patient_url, "--rate-burst", "5", rate_limit="1/minute")
    with server.client() as client:
        assert used_up(client, 6) in (5, 6)
        valkey.kill()
        assert used_up(client, 6) in (5, 6), "in memory it begins anew"
        assert times_said(server, "counts rate limits for itself") == 1
        valkey.start()
        until = time.monotonic() + 60
        while "answers again" not in server.said() and time.monotonic() < until:
            assert client.get(ME).status_code in (200, 429)
            time.sleep(0.1)
        assert used_up(client, 6) in (4, 5, 6), "in a Valkey that has forgotten, too"
        assert times_said(server, "answers again") == 1


def test_a_server_starts_without_its_valkey(only_postgresql, start_server, valkey):
    valkey.kill()
    server = start_server("--valkey-url", valkey.url, rate_limit="5/minute")
    with server.client() as client:
        assert budget(client.get(ME)) == ("default", 4)
    assert times_said(server, "counts rate limits for itself") == 1


def test_several_processes_without_valkey_are_warned_of(only_postgresql, start_server):
    server = start_server("--workers", "2", rate_limit="5/minute")
    assert times_said(server, "--valkey-url") == 1


def test_with_sqlite_valkey_is_not_asked(database, start_server):
    if database != "sqlite":
        pytest.skip("about SQLite")
    server = start_server("--valkey-url", "valkey://127.0.0.1:1/0", rate_limit="5/minute")
    with server.client() as client:
        assert used_up(client, 5) == 5
    assert times_said(server, "Valkey is not used") == 1 and "does not answer" not in server.said()
