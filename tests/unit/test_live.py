"""How many long answers a process gives at once."""

import pytest
from taskade_server.consumers.feed import Feed
from taskade_server.http.live.sessions import Hub
from taskade_server.kit.errors import TooManyStreams, Unavailable


@pytest.fixture
def hub(db):
    return Hub(db, Feed(db), most=3, most_a_caller=2)


def test_each_caller_has_a_bound_and_so_have_all_together(hub):
    leave = hub.enter("ana")
    hub.enter("ana")
    with pytest.raises(TooManyStreams, match="2 streams"):
        hub.enter("ana")
    hub.enter("tom")
    with pytest.raises(Unavailable) as full:
        hub.enter("mia")
    assert full.value.headers["retry-after"]
    leave()
    leave()
    assert hub.stats()["streams_open"] == 2, "whoever leaves twice leaves once"
    hub.enter("mia")


def test_a_server_that_ends_begins_none(hub):
    hub.ended = True
    with pytest.raises(Unavailable):
        hub.enter("ana")
    assert hub.stats()["streams_open"] == 0
