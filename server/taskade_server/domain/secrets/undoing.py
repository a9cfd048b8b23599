"""What of the history of a secret can be undone: never its value, nor anything that takes it."""

from collections.abc import Mapping
from typing import Any


def cannot_be_undone_because(
    previous: Mapping[str, Any], present: Mapping[str, Any] | None, user_id: str
) -> str | None:
    """Why a user cannot undo a change of a secret, as the end of a sentence; None if they can.

    `previous` holds the members that the change replaced, `present` the secret as it is now, if it still exists.
    """
    if "value_set_at" in previous:
        return (
            "the value that it replaced is not kept; PATCH the secret with the hosts and the value that it shall have"
        )
    if present is not None and present["user_id"] != user_id:
        return "somebody else gave the value of the secret, so that changing it takes the value; PATCH it with one"
    return None
