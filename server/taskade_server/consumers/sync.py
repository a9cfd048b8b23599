"""Delta sync: what a client has to add, change and forget to have what its user may see, from a token of last time.

Why a token says more than a position: what was sent before depended on the rights of that moment. The token keeps the
position up to which the log is done and the one whose rights the last answer was given by; between the two and now lies
every change that the client has not heard of, of objects and of rights. Rows are always sent as they are now, so
an answer may be asked for again, and nothing is lost by one that never arrived.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from taskade_server.consumers import worlds
from taskade_server.consumers.worlds import INSIDE, OWN, TEMPLATES, Lens, World
from taskade_server.engine import access, log
from taskade_server.engine.access import Principal
from taskade_server.engine.log import Touch
from taskade_server.engine.model import REGISTRY, Resource
from taskade_server.kit import json, signing, time
from taskade_server.kit.errors import InvalidQuery, Issue, TokenExpired
from taskade_server.store.database import Tx

DEFAULT_LIMIT: Final = 500
MAX_LIMIT: Final = 1000
MAX_PROJECTS: Final = 50
DAYS: Final = 30
PAGE_TEXT: Final = 8 << 20
SCAN: Final = 5_000
"""So many events, or rows, one answer looks at."""
LEGS: Final = 400
NARROW: Final = 200
"""Up to so many projects are walked through one by one; beyond, the workspace as a whole."""
MAX_LENSES: Final = 8
_VERSION: Final = 1

# In the order in which a client can use them: nothing refers to what comes later.
KINDS: Final = {
    "workspaces": "workspace", "users": "user", "templates": "template", "api-keys": "api_key",
    "projects": "project", "members": "member", "tasks": "task", "comments": "comment",
}  # fmt: skip
BY_DEFAULT: Final = tuple(kind for kind in KINDS if kind != "api-keys")
_INSIDE_PROJECTS: Final = ("projects", "project-members", "tasks", "comments")
_GENERAL: Final = {"workspaces": INSIDE, "users": INSIDE, "members": INSIDE, "templates": TEMPLATES, "api-keys": OWN}
# Each kind with its scope; who may read a project may read who is in it.
_SCOPES: Final = (
    ("workspaces", "workspaces"), ("users", "users"), ("members", "workspaces"), ("templates", "templates"),
    ("api-keys", "api-keys"), ("projects", "projects"), ("project-members", "projects"), ("tasks", "tasks"),
    ("comments", "comments"),
)  # fmt: skip
_OF: Final = {"project-members": "members"}


class Wanted(NamedTuple):
    """What is synced. `kinds` None: all that the key may read; `projects` empty: all."""

    workspace_id: str
    kinds: tuple[str, ...] | None
    projects: tuple[str, ...]


@dataclass(slots=True)
class Token:
    """How far a client is.

    Up to `done` the log is in what it has; what it was sent since `rights` depended on the rights of the time and on
    the `lenses`. Changes of rights up to `walked` are in what it has, too. `seen` is the log's end when it was last
    answered. `walk` is where the walk through rows goes on, if one is under way; `foreign` what was known of users whom
    other workspaces invited.
    """

    user_id: str
    wanted: Wanted
    done: int
    rights: int
    walked: int
    seen: int
    at: int
    lenses: list[Lens]
    foreign: str
    walk: "Walk | None"


class Walk(NamedTuple):
    """A walk through the rows: of everything (`full`), or where rights have changed; `place` is the next leg."""

    full: bool
    wide: bool
    begun: int
    section: int
    place: str
    rank: int
    n: int

    @property
    def at_start(self) -> bool:
        """Whether nothing has been walked through."""
        return (self.section, self.place, self.rank, self.n) == (0, "", 0, 0)


@dataclass(slots=True)
class Answer:
    """The changes of one answer by resource: documents to put, ids to forget."""

    wanted: Wanted
    created: dict[str, list[str]] = field(default_factory=dict)
    updated: dict[str, list[str]] = field(default_factory=dict)
    deleted: dict[str, list[str]] = field(default_factory=dict)
    size: int = 0
    told: set[str] = field(default_factory=set)

    def put(self, kind: str, object_id: str, text: str, *, new: bool) -> None:
        """An object that the client shall have as it is."""
        if self._first(object_id):
            (self.created if new else self.updated).setdefault(_OF.get(kind, kind), []).append(text)
            self.size += len(text)

    def forget(self, kind: str, object_id: str) -> None:
        """An object that the client shall not have."""
        if self._first(object_id):
            self.deleted.setdefault(_OF.get(kind, kind), []).append(object_id)

    def _first(self, object_id: str) -> bool:
        """Whether it is told of for the first time: the walk and the log may both come to it, in the same state."""
        if object_id in self.told:
            return False
        self.told.add(object_id)
        return True

    @property
    def count(self) -> int:
        """How many objects it tells of."""
        return len(self.told)

    def render(self, kinds: Iterable[str], next_token: str, *, more: bool, seq: int) -> str:
        """The JSON text."""
        parts = [
            f'"{kind}":{{"created":{json.array(self.created.get(kind, []))},'
            f'"updated":{json.array(self.updated.get(kind, []))},"deleted":{json.encode(self.deleted.get(kind, []))}}}'
            for kind in kinds
        ]
        return (
            f'{{"workspace_id":"{self.wanted.workspace_id}","changes":{{{",".join(parts)}}},"next":"{next_token}",'
            f'"has_more":{"true" if more else "false"},"seq":{seq}}}'
        )


# ---- tokens ----------------------------------------------------------------------------------------------------------


def seal(secret: bytes, token: Token) -> str:
    """A token as its client carries it: signed, so that it can be neither made nor altered."""
    lenses = [[lens.readable, lens.projects, lens.reaches] for lens in token.lenses]
    payload = [
        "sync", _VERSION, token.user_id, token.wanted, token.done, token.rights, token.walked, token.seen, token.at,
        lenses, token.foreign, token.walk,
    ]  # fmt: skip
    return signing.seal(secret, json.encode_bytes(payload))


def unseal(secret: bytes, text: str) -> Token | None:
    """What `seal` made; None for anything else."""
    payload = signing.unseal(secret, text) if text.isascii() else None
    found = json.decode(payload) if payload is not None else None
    if not isinstance(found, list) or found[:2] != ["sync", _VERSION]:
        return None
    user_id, (workspace_id, kinds, projects), done, rights, walked, seen, at, lenses, foreign, walk = found[2:]
    wanted = Wanted(workspace_id, None if kinds is None else tuple(kinds), tuple(projects))
    known = [
        Lens(tuple(readable), None if limit is None else tuple(limit), reaches) for readable, limit, reaches in lenses
    ]
    return Token(user_id, wanted, done, rights, walked, seen, at, known, foreign, Walk(*walk) if walk else None)


def accept(secret: bytes, text: str, principal: Principal, given: dict[str, Any]) -> Token:
    """The caller's own token; InvalidQuery if it is another's, or for something else than `given` says.

    TokenExpired when it is older than the server promises to look back.
    """
    token = unseal(secret, text)
    if token is None:
        raise _refused("since", "invalid_token", "This is no token of this server: give the next of an earlier answer.")
    if token.user_id != principal.user_id:
        raise _refused("since", "token_of_another_caller", "This token belongs to another user; start without one.")
    workspace_id, kinds, projects = token.wanted
    own = {"workspace_id": workspace_id, "resources": kinds, "project_id": projects}
    for name, value in given.items():
        if value != own[name]:
            detail = f"This token was made with another {name}. Leave {name} out, or start without a token."
            raise _refused(name, "token_of_another_query", detail)
    if time.now_ms() - token.at > DAYS * time.DAY_MS:
        raise TokenExpired(f"This token is older than {DAYS} days.")
    return token


def _refused(name: str, code: str, detail: str) -> InvalidQuery:
    return InvalidQuery(errors=[Issue(code, detail, parameter=name)])


# ---- answering -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Desk:
    """One answer in the making."""

    tx: Tx
    principal: Principal
    token: Token
    world: World
    kinds: frozenset[str]
    limit: int
    answer: Answer
    head: int

    @property
    def workspace_id(self) -> str:
        return self.token.wanted.workspace_id

    @property
    def full(self) -> bool:
        """Whether the answer has no room left."""
        return self.answer.count >= self.limit or self.answer.size >= PAGE_TEXT

    def chosen(self, project_id: str | None) -> bool:
        """Whether the filter lets a project through."""
        return not self.token.wanted.projects or project_id in self.token.wanted.projects

    def place(self, kind: str, project_id: str | None) -> str:
        """Where in the caller's world a thing lies."""
        return _GENERAL[kind] if kind in _GENERAL else str(project_id)

    def shown(self, kind: str, project_id: str | None, object_id: str) -> bool:
        """Whether a live thing is to be had, by its rights in the log and by those that the caller came with."""
        if kind in _INSIDE_PROJECTS and not self.chosen(project_id):
            return False
        if not self.world.now(kind, self.place(kind, project_id)):
            return False
        resource = _resource(kind)
        if resource.visibility in ("shared", "owner"):
            return resource.visibility == "owner" or self.principal.grant(self.workspace_id) is not None
        return access.sees(self.principal, resource, self.workspace_id, project_id, object_id)


def begin(tx: Tx, principal: Principal, key: dict[str, Any], wanted: Wanted) -> Token:
    """The token of a client that has nothing yet."""
    head = log.head(tx, wanted.workspace_id)
    lens = worlds.lens_of(principal, key, wanted.workspace_id, _SCOPES)
    foreign, walk = _foreign(tx, wanted.workspace_id), Walk(True, False, head, 0, "", 0, 0)
    return Token(principal.user_id, wanted, head, head, head, head, 0, [lens], foreign, walk)


def proceed(
    tx: Tx, principal: Principal, key: dict[str, Any], token: Token, limit: int, secret: bytes
) -> str:  # fmt: skip
    """The next answer for a client, as JSON text. TokenExpired if the log cannot tell any more what it missed."""
    wanted = token.wanted
    first, head = log.bounds(tx, wanted.workspace_id)
    lens = worlds.lens_of(principal, key, wanted.workspace_id, _SCOPES)
    turned = lens != token.lenses[-1]
    if turned:
        token.lenses = [*(known for known in token.lenses if known != lens), lens]
    world = worlds.world(tx, principal, wanted.workspace_id, token.rights, token.lenses)
    if token.done + 1 < first or world is None or len(token.lenses) > MAX_LENSES:
        raise TokenExpired("What has happened since this token was made can no longer be told.")
    if turned or world.turned > (token.walked if token.walk is None else token.walk.begun):
        token.walk = Walk(token.walk is not None and token.walk.full, False, head, 0, "", 0, 0)
    kinds = frozenset(wanted.kinds or BY_DEFAULT)
    inner = kinds | ({"project-members"} if "members" in kinds else set())
    desk = _Desk(tx, principal, token, world, inner, limit, Answer(wanted), head)
    if token.walk is None or _walk(desk):
        token.walk, token.walked = None, head
        _follow(desk)
    more = token.walk is not None or token.done < head
    if not more:
        _foreigners(desk)
        token.rights, token.lenses = head, [lens]
    token.seen, token.at = head, time.now_ms()
    shown = [kind for kind in KINDS if kind in (wanted.kinds or BY_DEFAULT)]
    return desk.answer.render(shown, seal(secret, token), more=more, seq=head)


def _resource(kind: str) -> Resource:
    return REGISTRY[KINDS[_OF.get(kind, kind)]]


# ---- the walk through rows -------------------------------------------------------------------------------------------

_Leg = tuple[int, str, int, str]
"""Section, place, rank and kind: what is walked through, in this order."""


def _walk(desk: _Desk) -> bool:
    """Go on with the walk until the answer is full; whether it has come to its end."""
    walk = desk.token.walk
    assert walk is not None
    places = _places(desk, walk)
    if walk.at_start:
        walk = walk._replace(wide=places is None or len(places) > NARROW)
    here, steps, looked = (walk.section, walk.place, walk.rank), 0, 0
    for section, place, rank, kind in _legs(desk, walk, places or []):
        if (section, place, rank) < here:
            continue
        n = walk.n if (section, place, rank) == here else 0
        steps += 1
        while True:
            if desk.full or steps > LEGS or looked > SCAN:
                desk.token.walk = walk._replace(section=section, place=place, rank=rank, n=n)
                return False
            rows, cut = _rows(desk, kind, place if section and place else None, n)
            for text, number, object_id, project_id in rows:
                n = number
                _offer(desk, walk, kind, text, object_id, project_id)
            looked += len(rows)
            if not rows or not cut:
                break
    return True


def _offer(desk: _Desk, walk: Walk, kind: str, text: str, object_id: str, project_id: str | None) -> None:
    """A live row that the walk has come to: it is to be had, to be forgotten, or none of the client's business."""
    place = desk.place(kind, project_id)
    if desk.shown(kind, project_id, object_id):
        if walk.full or not desk.world.always(kind, place):
            desk.answer.put(kind, object_id, text, new=True)
    elif desk.world.ever(kind, place) and (kind in _GENERAL or desk.chosen(project_id)):
        desk.answer.forget(kind, object_id)


def _places(desk: _Desk, walk: Walk) -> list[str] | None:
    """The projects to walk through, in order; None for so many that the workspace is walked through as a whole."""
    if desk.token.wanted.projects:
        return sorted(desk.token.wanted.projects)
    if not walk.full and not desk.world.everywhere():
        return sorted(desk.world.special)
    if walk.wide:
        return None
    sql, most = "SELECT id FROM projects WHERE workspace_id = ?", 10 * NARROW
    found = desk.tx.all(f"{sql} LIMIT {most}" if walk.at_start else sql, (desk.workspace_id,))
    if walk.at_start and len(found) == most:
        return None
    return sorted(row[0] for row in found if _concerns(desk.world, row[0]))


def _concerns(world: World, place: str) -> bool:
    return any(world.now(kind, place) or world.ever(kind, place) for kind in _INSIDE_PROJECTS)


def _legs(desk: _Desk, walk: Walk, places: Sequence[str]) -> Iterator[_Leg]:
    yield from ((0, "", rank, kind) for rank, kind in enumerate(_GENERAL) if kind in desk.kinds)
    if walk.wide:
        yield from ((1, "", rank, kind) for rank, kind in enumerate(_INSIDE_PROJECTS) if kind in desk.kinds)
        return
    for place in places:
        yield from ((1, place, rank, kind) for rank, kind in enumerate(_INSIDE_PROJECTS) if kind in desk.kinds)


def _rows(desk: _Desk, kind: str, project_id: str | None, n: int) -> tuple[list[tuple[Any, ...]], bool]:
    """The next live rows of a leg as (document, number, id, project), and whether there may be more."""
    resource, limit = _resource(kind), desk.limit - desk.answer.count
    project = f"t.{resource.project_column}" if resource.project_column else "NULL"
    source, number, params = f"{resource.table} t", "t.n", [desk.workspace_id]
    where = ["t.workspace_id = ?"]
    if kind == "users":
        source, number = 'members m JOIN users t ON t.id = m."user"', "m.n"
        where = ["m.workspace_id = ?", "m.project_id IS NULL"]
    elif kind == "workspaces":
        where = ["t.id = ?"]
    elif kind == "api-keys":
        where, params = [*where, "t.user_id = ?"], [*params, desk.principal.user_id]
    elif kind == "members":
        where.append("t.project_id IS NULL")
    elif project_id is not None:
        where, params = [f"{project} = ?"], [project_id]
    elif kind == "project-members":
        where.append("t.project_id IS NOT NULL")
    if resource.trash:
        where.append("t.deleted_at IS NULL")
    rows, cut = desk.tx.page(
        f"SELECT t.doc, {number}, t.id, {project} FROM {source} WHERE {' AND '.join(where)} AND {number} > ?"
        f" ORDER BY {number} LIMIT {limit}",
        (*params, n), PAGE_TEXT,
    )  # fmt: skip
    return rows, cut or len(rows) >= limit


# ---- following the log -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Object:
    """What the log says of an object: when it was first touched, where it lay, whether it began meanwhile."""

    first: int
    born: int = 0
    places: set[str | None] = field(default_factory=set)


def _follow(desk: _Desk) -> None:
    """Tell of what the log has after the last position, until the answer is full."""
    token, looked = desk.token, 0
    while token.done < desk.head and not desk.full and looked < SCAN:
        most = desk.limit - desk.answer.count
        found = log.touches(desk.tx, desk.workspace_id, token.done, desk.head, 2 * most + 100)
        looked += len(found)
        touched, until = _touched(desk, found, most)
        rest = list(touched.values())[_tell(desk, touched) :]
        token.done = rest[0].first - 1 if rest else until
        if rest:
            break


def _touched(desk: _Desk, found: list[Touch], most: int) -> tuple[dict[tuple[str, str], _Object], int]:
    """The objects that some events touched, in the order of the first time, and up to which event that is."""
    touched: dict[tuple[str, str], _Object] = {}
    until = desk.token.done
    for event in found:
        kinds = [(kind, name) for kind, name in _kinds(event) if kind in desk.kinds]
        if len(touched) + sum(one not in touched for one in kinds) > max(most, 2):
            return touched, until
        for one in kinds:
            entry = touched.get(one)
            if entry is None:
                born = event.seq if event.type.endswith((".created", ".added")) else 0
                entry = touched[one] = _Object(event.seq, born)
            entry.places.add(event.project_id)
            if event.previous:
                previous = json.decode(event.previous)
                if "project_id" in previous:
                    entry.places.add(previous["project_id"])
        until = event.seq
    return touched, until if found else desk.head


def _kinds(event: Touch) -> list[tuple[str, str]]:
    """What an event touched, as (kind, id). Who joins a workspace or leaves it is seen or not, as a user."""
    if event.resource == "member":
        if event.project_id is not None:
            return [("project-members", event.object_id)]
        return [("members", event.object_id), ("users", json.decode(event.data or "{}")["user"])]
    kind = _BY_NAME.get(event.resource)
    return [] if kind is None else [(kind, event.object_id)]


_BY_NAME: Final = {name: kind for kind, name in KINDS.items()}


def _tell(desk: _Desk, touched: dict[tuple[str, str], _Object]) -> int:
    """Tell of touched objects as they are now; of how many of them, from the first, there was room to tell."""
    objects = list(touched)
    while True:
        texts: dict[tuple[str, str], tuple[str, str | None]] = {}
        cut = False
        for kind in {kind for kind, _ in objects}:
            wanted = [object_id for one, object_id in objects if one == kind]
            rows, short = _present(desk, kind, wanted)
            cut = cut or short
            texts |= {(kind, row[1]): (row[0], row[2]) for row in rows}
        if not cut or len(objects) <= 2:
            break
        objects = objects[: (len(objects) + 1) // 2]
    for kind, object_id in objects:
        _report(desk, kind, object_id, touched[kind, object_id], texts.get((kind, object_id)))
    return len(objects)


def _report(desk: _Desk, kind: str, object_id: str, entry: _Object, row: tuple[str, str | None] | None) -> None:
    if row is not None and desk.shown(kind, row[1], object_id):
        desk.answer.put(kind, object_id, row[0], new=entry.born > desk.token.seen)
        return
    # Also what began and ended since the token was made: an answer in between may have been taken and its token lost.
    places = {INSIDE} if kind in _GENERAL else entry.places | ({row[1]} if row is not None else set())
    if any(
        desk.world.ever(kind, desk.place(kind, place)) for place in places if kind in _GENERAL or desk.chosen(place)
    ):
        desk.answer.forget(kind, object_id)


def _present(desk: _Desk, kind: str, wanted: Sequence[str]) -> tuple[list[tuple[Any, ...]], bool]:
    """The live ones of some objects as (document, id, project), and whether there was no room for all."""
    resource = _resource(kind)
    project = f"t.{resource.project_column}" if resource.project_column else "NULL"
    condition, params = access.among("t.id", wanted, desk.tx.dialect)
    where = [condition]
    if resource.trash:
        where.append("t.deleted_at IS NULL")
    if kind == "users":
        where.append(
            'EXISTS (SELECT 1 FROM members m WHERE m.workspace_id = ? AND m."user" = t.id AND m.project_id IS NULL)'
        )
        params.append(desk.workspace_id)
    if kind == "api-keys":
        where.append("t.user_id = ?")
        params.append(desk.principal.user_id)
    return desk.tx.page(
        f"SELECT t.doc, t.id, {project} FROM {resource.table} t WHERE {' AND '.join(where)}", params, PAGE_TEXT
    )


# ---- people from elsewhere -------------------------------------------------------------------------------------------

_FOREIGN: Final = (
    'FROM members m JOIN users u ON u.id = m."user"'
    " WHERE m.workspace_id = ? AND m.project_id IS NULL AND u.workspace_id <> m.workspace_id"
)


def _foreign(tx: Tx, workspace_id: str) -> str:
    """A digest of the members whom another workspace invited, whose changes are in the log of that workspace."""
    rows = tx.all(f"SELECT u.id, u.version {_FOREIGN} ORDER BY u.id", (workspace_id,))
    return hashlib.blake2b(repr(rows).encode(), digest_size=8).hexdigest() if rows else ""


def _foreigners(desk: _Desk) -> None:
    """Tell of those, all of them, if one has changed: they are few."""
    if "users" not in desk.kinds or not desk.world.now("users", INSIDE):
        return
    digest = _foreign(desk.tx, desk.workspace_id)
    if digest == desk.token.foreign:
        return
    desk.token.foreign = digest
    for text, object_id, deleted_at in desk.tx.all(
        f"SELECT u.doc, u.id, u.deleted_at {_FOREIGN}", (desk.workspace_id,)
    ):
        if deleted_at is None:
            desk.answer.put("users", object_id, text, new=False)
        else:
            desk.answer.forget("users", object_id)
