"""Has the server deliver an event to a webhook once more, and waits for what the receiver says.

Why it waits: the reason to send an event again is to learn whether it is accepted this time.
"""

import time
from typing import Any, Final
from urllib.parse import quote

from taskade_server.tools.client import Api
from taskade_server.tools.forward import CUT

LOOK_SECONDS: Final = 0.2


def resend(api: Api, webhook: str, event: str, seconds: float) -> tuple[dict[str, Any], bool]:
    """The delivery with its attempts, and whether there was one more within so many seconds."""
    path = f"/webhooks/{quote(webhook, safe='')}/deliveries/{quote(event, safe='')}"
    before = api.ask("GET", path)["attempts"]
    api.ask("POST", f"{path}/resend")
    until = time.monotonic() + seconds
    while (delivery := api.ask("GET", path))["attempts"] <= before and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    return delivery, delivery["attempts"] > before


def shown(delivery: dict[str, Any], done: bool) -> str:
    """What became of it, for people."""
    head = f"{delivery['type']}  {delivery['event_id']}  "
    if not done:
        return f"{head}not sent yet: the delivery is {delivery['state']}"
    attempt = delivery["attempt_log"][-1]
    if attempt["status"] is None:
        return f"{head}not delivered: {attempt['detail']}"
    said = " ".join(attempt["response_body"].split())
    return f"{head}{attempt['status']} in {attempt['duration_ms']:,.0f} ms  {said[:CUT]}".rstrip()
