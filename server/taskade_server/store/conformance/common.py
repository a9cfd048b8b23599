"""What every database must do."""

from taskade_server.store.conformance.concurrency import Concurrency
from taskade_server.store.conformance.migrations import Migrations
from taskade_server.store.conformance.statements import Statements
from taskade_server.store.conformance.units import Units


class Conformance(Statements, Units, Concurrency, Migrations):
    """What holds for every database."""
