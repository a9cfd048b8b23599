"""The hostile fuzzer in its short form: on each database a fixed number of requests, the same ones to begin with.

The long form is `make hostile`.
"""

from tests.hostile.run import Fuzzer, Options

REQUESTS = 2500


def test_hostile_clients_find_no_error_and_no_foreign_text(make_server):
    said: list[str] = []
    outcome = Fuzzer(make_server().start(), Options(seed=9, requests=REQUESTS), said.append).run()
    assert outcome.faults == []
    assert outcome.texts > 500 and outcome.events > 200, "too little happened to mean anything"
    assert {200, 201, 400, 401, 403, 404, 422} <= set(outcome.statuses)
