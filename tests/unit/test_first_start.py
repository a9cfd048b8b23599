"""Servers that start together on an empty PostgreSQL make one owner and one key, and all of them start."""

from concurrent.futures import ThreadPoolExecutor

from taskade_server import installation
from taskade_server.config import Config

SERVERS = 4


def test_servers_may_start_together(postgres, tmp_path):
    config = Config(data=tmp_path, database_url=postgres.create_database())

    def start(_: int) -> tuple[bytes, str | None]:
        db, secret = installation.open_database(config)
        with db:
            return secret, db.write_sync(lambda tx: installation.first_start(tx, secret))

    with ThreadPoolExecutor(SERVERS) as pool:
        started = list(pool.map(start, range(SERVERS)))
    assert len({secret for secret, _ in started}) == 1
    assert len([key for _, key in started if key is not None]) == 1
