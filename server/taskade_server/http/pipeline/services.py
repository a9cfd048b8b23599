"""`Services`: what the parts of the pipeline share, made once when a server process starts."""

from dataclasses import dataclass

from taskade_server.consumers.access_log import Refusals
from taskade_server.consumers.feed import Feed
from taskade_server.http.admission.credentials import Credentials
from taskade_server.http.admission.limits import Limits
from taskade_server.http.live.sessions import Hub
from taskade_server.http.observe.requests import Observer
from taskade_server.http.wire.addresses import DIRECT, Proxies
from taskade_server.kit.destinations import NOWHERE_INSIDE, Rules
from taskade_server.store.database import Database


@dataclass(frozen=True, slots=True)
class Services:
    """What the parts of the pipeline share.

    `secret` is the installation's, `public_url` the address that links begin with (None: what each request says),
    `destinations` are the addresses that webhooks may have. What is None is not there: without `feed` nobody is woken
    after a commit, without `hub` there are no streams, without `replica` all reads go to `db`.
    """

    db: Database
    secret: bytes
    limits: Limits
    credentials: Credentials
    observer: Observer | None = None
    public_url: str | None = None
    proxies: Proxies = DIRECT
    replica: Database | None = None
    feed: Feed | None = None
    refusals: Refusals | None = None
    destinations: Rules = NOWHERE_INSIDE
    hub: Hub | None = None
