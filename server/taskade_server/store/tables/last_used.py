"""When API keys were last used, which is no change of them and so has no event."""

from taskade_server.store.interface import Tx


def note(tx: Tx, object_id: str, at: int) -> None:
    """Note when something was last used; that is no change of it, so it has no event."""
    tx.run(
        "INSERT INTO last_used (id, at) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at",
        (object_id, at),
    )
