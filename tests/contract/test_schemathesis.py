"""Generated requests, right and wrong ones, against a running server: whatever it answers, the document says so.

Why the command and not its Python interface: `make fuzz` is the same run with more examples and every boundary value,
so whoever changes the API has one thing to learn.
"""

from taskade_server.http.routes import all_routes

from tests.support import fuzz

SHORT = ("--phases", "examples,fuzzing,stateful", "--max-examples", "5")


def test_generated_requests_are_answered_as_documented(tmp_path):
    outcome = fuzz.run(tmp_path, *SHORT)
    assert outcome.code == 0, outcome.text[-20_000:]
    assert outcome.report["test_cases"]["with_failures"] == 0
    assert set(outcome.statuses) == {f"{route.method} {route.path}" for route in all_routes()}
    assert fuzz.never_succeeded(outcome.statuses) == []
    assert " ERROR " not in outcome.text
