"""An installation's database, its secret, and what the very first start makes.

Why apart from the server: most commands need these and nothing of HTTP, and start in a third of the time without it.
"""

import logging
import os
from collections.abc import Callable
from typing import Final

from taskade_server.config import Config, ConfigError, check, file_secret, given_secret, kept_secret, prepare_folder
from taskade_server.domain import identity, projects, workspaces
from taskade_server.engine import edit, log, renewal
from taskade_server.engine.access import Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor, Change
from taskade_server.kit import ids
from taskade_server.store import backup, schema
from taskade_server.store.database import Database, StorageFull, Tx, connect
from taskade_server.store.tables import settings

logger: Final = logging.getLogger("taskade")
OWNER_EMAIL: Final = "owner@localhost"


def open_database(config: Config, on_fatal: Callable[[BaseException], None] | None = None) -> tuple[Database, bytes]:
    """The opened and migrated database and the installation's secret. StoreError or ConfigError in one clear line."""
    check(config)
    if config.database_url is None:
        prepare_folder(config.data)
    db = connect(config.target, synchronous=config.synchronous, on_fatal=on_fatal)
    db.open_sync()
    try:
        _upgrade(db)
        return db, _secret(config, db)
    except BaseException:
        db.close_sync()
        raise


def _upgrade(db: Database) -> None:
    schema.migrate(db)
    try:
        renewal.renew(db)
    except StorageFull:
        # As without it: what is there can be read. The next start goes on.
        logger.warning("The disk is full: searches and orders of some rows are still those of an older version.")


def _secret(config: Config, db: Database) -> bytes:
    """The installation's secret, made on the very first start. ConfigError if it is not the one of this database."""
    # Whoever makes users has made the secret before, so it is looked for after them.
    used = db.read_sync(_has_users)
    known, secret = present_secret(config, db)
    if secret is None:
        if used or known is not None:
            raise ConfigError(f"The secret of this database is missing: {_way_back(config)}")
        secret = _made_secret(config, db)
    if known is None:
        known = _noted(db, secret)
    if known != backup.fingerprint(secret):
        raise ConfigError(f"This database was used with another secret: {_way_back(config)}")
    return secret


def present_secret(config: Config, db: Database) -> tuple[str | None, bytes | None]:
    """The fingerprint of the secret that the database was used with, and the secret that is there now, if any."""
    known, stored = db.read_sync(lambda tx: (settings.get(tx, backup.FINGERPRINT), settings.get(tx, backup.SECRET)))
    given = given_secret()
    if given is not None or config.database_url is None:
        return known, given or kept_secret(config.secret_file)
    try:
        return known, bytes.fromhex(stored) if stored else None
    except ValueError as error:
        raise ConfigError("The row `secret` of the table `settings` is damaged: restore a backup.") from error


def replace_secret(config: Config) -> None:
    """Use the secret that is there, or else a new one, in place of a lost one. ConfigError if none is lost."""
    check(config)
    with connect(config.target) as db:
        renewal.upgrade(db)
        known, secret = present_secret(config, db)
        if secret is not None and known in (None, backup.fingerprint(secret)):
            raise ConfigError("The secret is the one that this database was used with; nothing was changed.")
        secret = secret or _made_secret(config, db)
        db.write_sync(lambda tx: settings.delete(tx, backup.FINGERPRINT))
        _noted(db, secret)


def _made_secret(config: Config, db: Database) -> bytes:
    if config.database_url is None:
        return file_secret(config.secret_file)
    return bytes.fromhex(db.write_sync(lambda tx: settings.get_or_create(tx, backup.SECRET, os.urandom(32).hex())))


def _noted(db: Database, secret: bytes) -> str:
    """The fingerprint that is kept; of this secret, if there was none."""
    try:
        return db.write_sync(lambda tx: settings.get_or_create(tx, backup.FINGERPRINT, backup.fingerprint(secret)))
    except StorageFull:
        logger.warning("The disk is full, so it could not be noted which secret this database is used with.")
        return backup.fingerprint(secret)


def _way_back(config: Config) -> str:
    """The advice for an operator whose secret is missing or wrong."""
    place = config.secret_file if config.database_url is None else "the row `secret` of the table `settings`"
    return (
        f"put it back ({place}, or TASKADE_SECRET), or restore a backup that holds it; if it is lost for good,"
        " `taskade new-secret` goes on without it, and no API key or webhook made before will work."
    )


# ---- first start -----------------------------------------------------------------------------------------------------


def first_start(tx: Tx, secret: bytes) -> str | None:
    """On an empty database: the owner, a workspace and a key. Returns the key's secret, None if there are users."""
    # Servers that start together on PostgreSQL take turns here, so that only the first finds nobody.
    tx.one(f"SELECT value FROM counters WHERE name = 'grants'{tx.for_update}")
    if _has_users(tx):
        return None
    user_id, workspace_id = ids.new("user"), ids.new("ws")
    context = Context(Principal(user_id, None, frozenset("*"), {}, workspace_id), Actor(user_id), secret)
    values = edit.fields(identity.USER, {"name": "Owner", "email": OWNER_EMAIL, "handle": "owner"})
    doc = {**values, "id": user_id, "workspace_id": workspace_id}
    log.apply(tx, context.actor, [Change(identity.USER, "created", doc)])
    workspaces.create(tx, context, {"id": workspace_id, "name": "My workspace"})
    projects.add_builtin_templates(tx, context, workspace_id)
    key = edit.fields(identity.API_KEY, {"name": "First key"})
    return identity.new_key(tx, context, user_id, workspace_id, key)[1]


def first_key(db: Database, secret: bytes) -> str | None:
    """`first_start` if there has been none. It only looks at first, so that a server comes up on a full disk."""
    if db.read_sync(_has_users):
        return None
    return db.write_sync(lambda tx: first_start(tx, secret))


def _has_users(tx: Tx) -> bool:
    return tx.one("SELECT 1 FROM users LIMIT 1") is not None


def context_of(tx: Tx, secret: bytes, email: str | None) -> tuple[Context, str]:
    """A user (e-mail or handle; None: the first owner) as a context, and the home workspace. ConfigError if unknown."""
    where, params = ("email = ? OR handle = ?", (email.lower(), email.lower())) if email else ("1 = 1", ())
    row = tx.one(
        f"SELECT id, workspace_id FROM users WHERE ({where}) AND deleted_at IS NULL ORDER BY n LIMIT 1", params
    )
    if row is None:
        raise ConfigError(
            f"There is no user with the e-mail or handle {email}."
            if email
            else "There are no users yet; run `taskade serve` once."
        )
    principal = Principal(row[0], None, frozenset("*"), identity.grants_of(tx, row[0]), row[1])
    return Context(principal, Actor(row[0]), secret), row[1]
