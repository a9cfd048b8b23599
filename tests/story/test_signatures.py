"""What a receiver in JavaScript does with our signatures: two libraries, and the ten lines of an Express handler."""

import json as plain
import subprocess
import time
from pathlib import Path

import pytest
from taskade_server.kit import portable_json, webhook_signatures

from tests.support import toolchains

HERE = Path(__file__).parent / "node"
BODY = portable_json.portable(
    {"type": "task.created", "data": {"2024": 1.0, "a": 1e21, "name": "Übung \u2028 😀", "e": "\x7f\b/"}}
)


def received(deliveries):
    """What each of the three says to each delivery."""
    if not (HERE / "node_modules" / "standardwebhooks").is_dir():
        pytest.fail("standardwebhooks and svix are not installed: run the tests with `make test`")
    done = subprocess.run(
        [toolchains.node(), HERE / "signatures.mjs"],
        input=plain.dumps(deliveries),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return plain.loads(done.stdout)


def delivery(secret, keys=None, body=BODY):
    headers = webhook_signatures.headers("evt_1", int(time.time()), BODY.encode(), keys or [secret])
    standard = webhook_signatures.standard_form(secret)
    return {"secret": secret, "standard": standard, "headers": headers, "body": body}


def test_receivers_in_javascript():
    generated, pair = webhook_signatures.new_secret(), webhook_signatures.new_key_pair()
    good, rotated, signed_twice, flipped, foreign = received(
        [
            delivery("your_webhook_secret"),
            delivery(generated, [generated, "an older secret"]),
            delivery("an older secret", [pair.private, "a newer secret", "an older secret"]),
            delivery(generated, body=BODY.replace("task", "tasl")),
            delivery(generated, ["another secret"]),
        ]
    )
    assert good == rotated == ["verified"] * 3
    # The libraries look through all signatures; the handler knows only the first secret's.
    assert signed_twice == ["verified", "verified", "not the signature"]
    assert flipped == foreign == ["No matching signature found", "No matching signature found", "not the signature"]
