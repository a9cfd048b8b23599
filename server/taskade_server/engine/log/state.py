"""Two counters that tell whether something cached is still valid: the version of rights, and the history's number."""

from taskade_server.store.database import Tx
from taskade_server.store.tables import counters


def rights_version(tx: Tx) -> int:
    """The version of rights: a counter that every change of what anybody may see or do raises."""
    return _counters(tx).get("grants", 0)


def bump_rights_version(tx: Tx) -> None:
    """Raise the version of rights, so that no caller and no list cached under the old one is used any more."""
    counters.increment(tx, "grants")


def generation(tx: Tx) -> int:
    """Which history this is: 0, or a number that a restore chose, higher than any earlier version of
    an object or of rights.

    A position or a token of another generation may be about changes that were lost.
    """
    found = tx.context.get("generation")
    return found if isinstance(found, int) else _counters(tx).get("generation", 0)


def _counters(tx: Tx) -> dict[str, int]:
    """Both counters that units ask for, in one statement; the generation stays the same for the unit."""
    found = counters.values(tx, ("grants", "generation"))
    tx.context["generation"] = found.get("generation", 0)
    return found
