"""The limits as clients meet them: by key, by address, for batches, and across the processes of an installation.

Why servers of their own: a limit that is used up is in the way of every other test.
"""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from taskade_server.http.admission.limits import USER_SHARE

from tests.api.asking import create, problem
from tests.support.listening import eventually
from tests.support.rates import Budget
from tests.support.server import Server

ME = "/v1/users/me"


def policy(response: httpx2.Response) -> str:
    """The policy that an answer names."""
    return str(response.headers["ratelimit-policy"].partition(";")[0].strip('"'))


def use_up(client: httpx2.Client, burst: int, per_minute: int = 1) -> httpx2.Response:
    """The refusal that a client gets when it has used a budget that is full now."""
    return Budget(burst, per_minute).refusal(lambda: client.get(ME))


def test_many_keys_of_one_user_are_no_way_around_the_limit(start_server):
    server = start_server("--rate-burst", "3", rate_limit="1/minute")
    user, answered, violated = Budget(USER_SHARE * 3, USER_SHARE), 0, ["default"]
    while violated == ["default"]:  # more than one a minute for each key comes back to the user only on a slow machine
        with server.client(server.create_key(f"key {answered}")) as client:
            while (response := client.get(ME)).status_code == 200:
                answered += 1
        violated = problem(response, 429, "quota-exceeded")["violated-policies"]
        assert answered <= user.left + user.came_back
    assert violated == ["user"] and answered >= user.left


# ---- by address ------------------------------------------------------------------------------------------------------


def test_requests_without_a_key_are_counted_by_address(start_server):
    server = start_server("--anonymous-limit", "3/minute", rate_limit="100/minute")
    with server.client("") as nobody, server.client() as client:
        address = Budget(3, 3)
        for _ in range(3):
            refused = address.after(nobody.get(ME))
            problem(refused, 401, "unauthenticated")
            assert policy(refused) == "anonymous"
        refused = address.refusal(lambda: nobody.get("/v1/tasks"))
        document = problem(refused, 429, "quota-exceeded")
        assert document["violated-policies"] == ["anonymous"]
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        problem(address.refusal(lambda: nobody.get("/openapi.json")), 429)
        assert nobody.get("/health").status_code == nobody.get("/ready").status_code == 200
        assert policy(Budget(100, 100).after(client.get(ME))) == "default", "a key has a budget of its own"


def test_who_guesses_keys_is_refused_and_who_is_known_is_not(start_server):
    server = start_server("--login-limit", "3/minute", rate_limit="100/minute")
    with server.client() as known, server.client("tsk_wrong") as guesser, ExitStack() as stack:
        assert known.get(ME).status_code == 200
        for _ in range(3):
            problem(guesser.get(ME), 401, "unauthenticated")
        while True:
            unknown = stack.enter_context(server.client(server.create_key("not used yet")))
            while (refused := guesser.get(ME)).status_code == 401:
                pass
            answered = time.monotonic()
            document = problem(refused, 429, "quota-exceeded")
            assert document["violated-policies"] == ["login"]
            if (answer := unknown.get(ME)).status_code == 429:
                break
            # The machine stood still for as long as one is to wait.
            assert time.monotonic() - answered > int(refused.headers["retry-after"]) - 1, answer.text
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
    server = start_server("--anonymous-limit", "1/minute")
    with server.client("") as client:
        answers = [client.get(ME, headers={"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(2)]
    assert [answer.status_code for answer in answers] == [401, 429]
    assert times_said(server, "TASKADE_TRUSTED_PROXIES") == 1


# ---- by key ----------------------------------------------------------------------------------------------------------


def test_a_burst_and_a_rate_above_the_common_one(start_server):
    server = start_server("--rate-burst", "3", "--max-rate-limit", "1000/minute", rate_limit="1/minute")
    with server.client() as client:
        fast = create(client, "api-keys", name="fast", rate_limit=600)["secret"]
        greedy = create(client, "api-keys", name="greedy", rate_limit=100_000)["secret"]
        assert client.get(ME).headers["x-ratelimit-limit"] == "3"
    for key, rate in ((fast, 600), (greedy, 1000)):
        with server.client(key) as client:
            answer = client.get(ME)
            assert answer.headers["ratelimit-policy"] == f'"default";q={rate};w=60'
            assert answer.headers["x-ratelimit-limit"] == "3"


def test_without_a_limit_a_key_may_have_one_of_its_own(server, api):
    key = create(api, "api-keys", name="modest", rate_limit=2)["secret"]
    assert "ratelimit" not in api.get(ME).headers
    with server.client(key) as client:
        use_up(client, 2, 2)


def test_a_batch_costs_one_and_one_more_for_every_fifty_operations(start_server):
    server = start_server("--rate-burst", "100", rate_limit="1/minute")
    with server.client() as client:
        budget = Budget(100)
        for count, cost in ((1, 1), (49, 1), (50, 2), (99, 2), (100, 3), (1000, 21), (1001, 21)):
            operations = [{"method": "GET", "path": "/tasks?limit=1"}] * count
            answer = budget.after(client.post("/v1/batch", json={"operations": operations}), cost)
            assert answer.status_code == (200 if count <= 1000 else 422), answer.text


def test_a_bulk_request_costs_what_a_batch_costs_alone_and_inside_of_one(start_server):
    server = start_server("--rate-burst", "2", rate_limit="1/minute")
    tasks = [{"name": str(number)} for number in range(120)]
    create_many = {"method": "POST", "path": "/tasks/bulk", "body": {"tasks": tasks}}
    for path, body in (("tasks/bulk", {"tasks": tasks}), ("batch", {"operations": [create_many]})):
        with server.client(server.create_key(path)) as client:
            # One more than the bucket holds is let in when it is full, and waited for afterwards.
            budget = Budget(2)
            answer = budget.after(client.post(f"/v1/{path}", json=body), cost=3)
            assert answer.status_code in (200, 201), answer.text


def test_a_bulk_request_in_a_batch_costs_the_same_however_it_is_written(start_server):
    server = start_server("--rate-burst", "50", rate_limit="1/minute")
    tasks = [{"name": str(number)} for number in range(120)]
    listing = {"id": "l", "method": "GET", "path": "/tasks?limit=1&fields=id,name"}
    for path, body, cost in (
        ("/tasks/bulk", {"tasks": tasks}, 3),
        ("/v1/tasks/%62ulk", {"tasks": tasks}, 3),
        ("/%74asks/%62%75%6c%6b", {"tasks": tasks}, 3),
        ("/tasks/bulk", {"tasks": {"$ref": "l"}}, 21),
        ("/tasks/bulk", {"tasks": '{"$ref": "l"}'}, 21),
        ("/tasks/%62ulk", {"$ref": "l"}, 21),
    ):
        with server.client(server.create_key(path)) as client:
            operations = [listing, {"method": "POST", "path": path, "body": body}]
            answer = Budget(50).after(client.post("/v1/batch", json={"operations": operations}), cost)
            assert answer.status_code in (200, 409, 422), answer.text


def test_a_batch_above_the_burst_takes_a_full_bucket_and_a_refused_one_costs_nothing(start_server):
    server = start_server("--rate-burst", "3", rate_limit="1/minute")
    large = {"operations": [{"method": "GET", "path": "/tasks?limit=1"}] * 200}
    with server.client() as client:
        answer = Budget(3).after(client.post("/v1/batch", json=large), cost=5)
        assert answer.status_code == 200, answer.text
        problem(client.post("/v1/batch", json={"operations": large["operations"][:10]}), 429)
    with server.client(server.create_key("another")) as client:
        budget = Budget(3)
        budget.after(client.get(ME))
        while (answer := client.post("/v1/batch", json=large)).status_code == 200:
            assert budget.came_back, "the bucket was not full"
            budget = Budget(3)
            budget.after(client.get(ME))
        problem(answer, 429)
        budget.after(client.get(ME))  # a refused batch costs nothing


def test_waiting_as_told_is_enough_for_a_batch(start_server):
    server = start_server("--rate-burst", "5", rate_limit="300/minute")
    batch = {"operations": [{"method": "GET", "path": "/tasks?limit=1"}] * 400}
    with server.client() as client:
        refused = client.get(ME)
        while refused.status_code != 429:  # on a busy machine the bucket may fill as fast as one caller empties it
            with ThreadPoolExecutor(10) as threads:
                list(threads.map(client.get, [ME] * 20))
            refused = client.post("/v1/batch", json=batch)
        problem(refused, 429)
        time.sleep(int(refused.headers["retry-after"]))
        assert client.post("/v1/batch", json=batch).status_code == 200


def test_a_refusal_names_who_can_change_the_limit(start_server):
    server = start_server(rate_limit="2/minute")
    with server.client() as client:
        own = create(client, "api-keys", name="modest", rate_limit=1)["secret"]
        while (refused := client.get(ME)).status_code == 200:
            pass
        detail = problem(refused, 429)["detail"]
        assert "Each key may make 2 requests a minute" in detail
        assert "--rate-limit or TASKADE_RATE_LIMIT" in detail
    with server.client(own) as client:
        detail = problem(use_up(client, 1), 429)["detail"]
        assert "The rate_limit of this key is 1 requests a minute" in detail
        assert "TASKADE_RATE_LIMIT" not in detail, "the operator is not the one who set it"


def test_a_replay_costs_nothing(start_server):
    server = start_server("--rate-burst", "5", rate_limit="1/minute")
    with server.client() as client:
        budget = Budget(5)
        for _ in range(8):
            answer = client.post("/v1/projects", json={"name": "Once"}, headers={"Idempotency-Key": "k"})
            assert answer.status_code == 201
        budget.after(client.get(ME), cost=2)


# ---- several processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def only_postgresql(database: str) -> None:
    if database != "postgresql":
        pytest.skip("SQLite has one process")


def test_processes_count_together(only_postgresql, start_server, valkey):
    options = ("--rate-burst", "30", "--workers", "2", "--valkey-url", valkey.patient_url)
    server = start_server(*options, rate_limit="1/minute")
    assert server.key

    def ask() -> httpx2.Response:
        with server.client() as client:  # a new connection each time, so that both processes get some
            answer: httpx2.Response = client.get(ME)
        return answer

    budget = Budget(30)
    for _ in range(10):
        budget.refusal(ask)
    assert "counts rate limits for itself" not in server.said()


def test_servers_on_one_database_count_together(only_postgresql, start_server, valkey, tmp_path: Path):
    options = ("--valkey-url", valkey.patient_url, "--rate-burst", "10")
    one = start_server(*options, rate_limit="1/minute")
    other = Server(tmp_path / "data", one.database_url, *options, rate_limit="1/minute").start()
    try:
        with one.client() as here, other.client(one.key) as there:
            budget, clients = Budget(10), itertools.cycle([here, there])
            for _ in range(2):
                budget.refusal(lambda: next(clients).get(ME))
    finally:
        other.stop()


def test_while_valkey_is_away_requests_are_answered_and_counted(only_postgresql, start_server, valkey):
    server = start_server("--valkey-url", valkey.patient_url, "--rate-burst", "5", rate_limit="1/minute")
    with server.client() as client:
        use_up(client, 5)
        valkey.kill()
        use_up(client, 5)  # in memory it begins anew
        assert times_said(server, "counts rate limits for itself") == 1
        valkey.start()
        budget = Budget(5)
        until = time.monotonic() + 180
        while "answers again" not in server.said() and time.monotonic() < until:
            assert client.get(ME).status_code in (200, 429)
            time.sleep(0.1)
        # In a Valkey that has forgotten, too; it may have counted some of those above.
        used = 0
        while client.get(ME).status_code == 200:
            used += 1
        assert used <= 5 + budget.came_back
        assert times_said(server, "answers again") == 1


def test_a_server_starts_without_its_valkey(only_postgresql, start_server, valkey):
    valkey.kill()
    server = start_server("--valkey-url", valkey.url, rate_limit="5/minute")
    with server.client() as client:
        assert policy(Budget(5, 5).after(client.get(ME))) == "default"
    assert times_said(server, "counts rate limits for itself") == 1


def test_several_processes_without_valkey_are_warned_of(only_postgresql, start_server):
    server = start_server("--workers", "2", rate_limit="5/minute")
    assert times_said(server, "--valkey-url") == 1


def test_with_sqlite_valkey_is_not_asked(database, start_server):
    if database != "sqlite":
        pytest.skip("about SQLite")
    server = start_server("--valkey-url", "valkey://127.0.0.1:1/0", rate_limit="5/minute")
    with server.client() as client:
        use_up(client, 5, 5)
    assert times_said(server, "Valkey is not used") == 1 and "does not answer" not in server.said()
