"""What every database must do, as a test suite that ships: subclass it, and give its tests a factory.

Why it ships: two drivers that agree on paper drift apart in practice, and whoever writes a third one needs to know
what the layers above rely on. Each `test_` method takes a function that returns another, unopened `Database` on the
same storage, which is empty when the test begins.
"""

from taskade_server.store.conformance.common import Conformance
from taskade_server.store.conformance.postgresql import PostgresConformance
from taskade_server.store.conformance.sqlite import SqliteConformance
from taskade_server.store.conformance.support import Factory

__all__ = ["Conformance", "Factory", "PostgresConformance", "SqliteConformance"]
