"""The live tasks of one list (below one parent, or at the top of one project) in order, and the keys given there.

Why one class for every way into a list: a key has to be different from all others in the list, and only a reader
that knows what the same request does to the neighbours can tell. Where a key would grow long, some neighbours get new
ones instead.

The caller holds the lock of the workspace's log (`log.lock`) before it makes one: on PostgreSQL two requests would
otherwise read the same neighbours and give the same key twice.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import Any, Final

from taskade_server.domain import ordering
from taskade_server.engine import access, query
from taskade_server.kit import json
from taskade_server.kit.errors import Clash
from taskade_server.store.database import Tx

_NEAR: Final = 8
"""How many neighbours on each side are read for a single task."""
_REACHES: Final = (32, 256, 500)
"""How many neighbours on each side may get new keys: more only where fewer would leave the keys long."""
_SHORT: Final = 24
"""New keys up to this length are short enough to look no further."""
_ENTRIES_A_STEP: Final = 4
"""How many entries of a list are read for one step of the budget."""
_PENDING: Final = 2**62
_Entry = tuple[str, int, str]
"""A task in the order: its key, its number and its id."""
_key = itemgetter(0)


class Siblings:
    """The order of one list during one request.

    `absent` are the ids of tasks that leave the list or get another key in this request. With `whole` the list is
    read once and completely, for requests about many tasks; otherwise one task only may enter it.

    `renewed` has the new keys of neighbours by id, which the caller has to write, and `rows` the stored documents of
    those of them that did not enter in this request.
    """

    def __init__(self, tx: Tx, project_id: str, parent_id: str | None, absent: Collection[str], *, whole: bool) -> None:
        self._tx = tx
        self._list = (project_id, parent_id)
        self._where, self._params = _condition(project_id, parent_id)
        self._absent = set(absent)
        self._whole = whole
        self._entered: set[str] = set()
        self._entries: list[_Entry] = self._read_all() if whole else []
        self.renewed: dict[str, str] = {}
        self.rows: dict[str, tuple[query.Row, dict[str, Any]]] = {}

    def enter(self, task_id: str, wanted: str) -> str:
        """The key of a task that comes in with one: the same, or one directly behind the task that has it already."""
        own = wanted == ordering.initial(task_id)
        if own and not self._whole:
            return wanted
        self._read_near(wanted)
        index = bisect_right(self._entries, wanted, key=_key)
        taken = index > 0 and self._entries[index - 1][0] == wanted
        # The initial key of another id may be taken by a new task at any moment.
        if not taken and (own or not ordering.is_initial(wanted)):
            return self._put(index, task_id, wanted)
        # As near as it can be: tasks that are copied with their keys keep their order, in whatever order they come.
        near, (_, high) = f"{wanted}h", self._bounds(index, index)
        if len(near) <= ordering.LONG and not ordering.is_initial(near) and (high is None or near < high):
            return self._put(index, task_id, near)
        return self._key_at(index, task_id, wanted)

    def beside(self, task_id: str, anchor: dict[str, Any], *, before: bool) -> str:
        """A key directly before or after another task of the list."""
        self._read_near(anchor["position"])
        index = self._index(anchor["id"])
        if index is None:  # so many tasks have the same key that it was not among those read
            self._entries = self._read_all()
            index = self._index(anchor["id"])
        if index is None:
            raise Clash("The task to move to was moved or deleted at the same moment; try again.")
        return self._key_at(index if before else index + 1, task_id, anchor["position"])

    def _put(self, index: int, task_id: str, key: str) -> str:
        self._entries.insert(index, (key, _PENDING, task_id))
        self._entered.add(task_id)
        return key

    def _key_at(self, index: int, task_id: str, near: str) -> str:
        """A key for the task that comes to stand at `index`; `near` is a key there."""
        key = self._between(index)
        if key is not None and len(key) <= ordering.LONG:
            return self._put(index, task_id, key)
        keys, first, index = self._renewal(index, near)
        if keys and max(map(len, keys)) <= (ordering.LONG if key is not None else ordering.MAX_LENGTH):
            return self._renew(first, index, task_id, keys)
        if key is None:
            # Hundreds of neighbours with the same key, or changed by others at this moment: behind all of them.
            index = self._end_of_ties(near)
            key = self._between(index)
        if key is None or len(key) > ordering.MAX_LENGTH:
            raise Clash("The positions of the tasks here are too long to place another between them; shorten them.")
        return self._put(index, task_id, key)

    def _between(self, index: int) -> str | None:
        """A key between two entries; None if they have the same."""
        low, high = self._bounds(index, index)
        return None if low is not None and high is not None and low >= high else ordering.between(low, high)

    def _bounds(self, first: int, end: int) -> tuple[str | None, str | None]:
        """The keys before and behind some entries; None at the ends of the list."""
        return (
            self._entries[first - 1][0] if first else None,
            self._entries[end][0] if end < len(self._entries) else None,
        )

    def _index(self, task_id: str) -> int | None:
        return next((index for index, entry in enumerate(self._entries) if entry[2] == task_id), None)

    # ---- new keys for neighbours -------------------------------------------------------------------------------------

    def _renewal(self, index: int, near: str) -> tuple[list[str], int, int]:
        """New keys for a stretch of entries with one more at `index`; where that begins; and where `index` is now.

        No keys if there is no room. The list is read again with a wider reach until the keys are short.
        """
        keys: list[str] = []
        first = index
        for reach in _REACHES:
            index = self._widen(index, near, reach)
            first, end = max(0, index - reach), min(len(self._entries), index + reach)
            free = self._hold([entry[2] for entry in self._entries[first:end]])
            taken = [number for number in range(first, end) if self._entries[number][2] not in free]
            first = max([first, *(number + 1 for number in taken if number < index)])
            end = min([end, *(number for number in taken if number >= index)])
            if index < end == len(self._entries):
                end -= 1  # the last one keeps its key, so that new tasks still come behind it
            low, high = self._bounds(first, end)
            if low is not None and high is not None and low >= high:
                keys = []
                continue
            keys = ordering.spread(low, high, end - first + 1)
            if max(map(len, keys)) <= _SHORT:
                break
        return keys, first, index

    def _renew(self, first: int, index: int, task_id: str, keys: Sequence[str]) -> str:
        """Give the keys to the entries from `first` on, and to the task that comes to stand at `index`."""
        end = first + len(keys) - 1
        before, behind = self._entries[first:index], self._entries[index:end]
        stretch = [*before, ("", _PENDING, task_id), *behind]
        changed = [(entry[2], key) for entry, key in zip(stretch, keys, strict=True) if entry[0] != key]
        self.renewed |= {name: key for name, key in changed if name != task_id}
        self._load([name for name, _ in changed if name != task_id and name not in self._entered])
        self._entries[first:end] = [(key, entry[1], entry[2]) for entry, key in zip(stretch, keys, strict=True)]
        self._entered.add(task_id)
        return keys[index - first]

    def _hold(self, names: Sequence[str]) -> set[str]:
        """Lock and return those of some tasks that may get new keys: on PostgreSQL none that others are changing."""
        if not self._tx.locks_rows:
            return set(names)
        named, params = access.among("id", names, self._tx.dialect)
        found = self._tx.all(
            f"SELECT id FROM tasks WHERE {named} AND {self._where}{self._tx.for_update} SKIP LOCKED",
            (*params, *self._params),
        )
        return {row[0] for row in found} | self._entered

    def _load(self, names: Sequence[str]) -> None:
        wanted = [name for name in names if name not in self.rows]
        if not wanted:
            return
        named, params = access.among("id", wanted, self._tx.dialect)
        for n, text in self._tx.all(f"SELECT n, doc FROM tasks WHERE {named}", tuple(params)):
            doc = json.decode(text)
            self.rows[doc["id"]] = query.Row(n, doc["workspace_id"], doc["project_id"], text), doc

    # ---- reading -----------------------------------------------------------------------------------------------------

    def _read_all(self) -> list[_Entry]:
        sql = f"SELECT position, n, id FROM tasks WHERE {self._where} ORDER BY position, n"
        rows = self._tx.all(sql, tuple(self._params))
        self._tx.budget.spend(len(rows) // _ENTRIES_A_STEP)
        return [(key, n, name) for key, n, name in rows if name not in self._absent]

    def _read_near(self, key: str, width: int = _NEAR) -> None:
        """Read `width` entries on each side of a key, unless the whole list is known."""
        if self._whole:
            return
        limit = width + len(self._absent)
        below = f"SELECT position, n, id FROM tasks WHERE {self._where} AND position < ?"
        above = f"SELECT position, n, id FROM tasks WHERE {self._where} AND position >= ?"
        found = self._tx.all(
            f"SELECT * FROM ({below} ORDER BY position DESC, n DESC LIMIT {limit}) AS below"
            f" UNION ALL SELECT * FROM ({above} ORDER BY position, n LIMIT {limit}) AS above",
            (*self._params, key, *self._params, key),
        )
        if len(found) - sum(row[0] < key for row in found) >= limit and found[-1][0] == key:
            self._entries = self._read_all()  # more have this key than were read
        else:
            self._entries = sorted((row[0], row[1], row[2]) for row in found if row[2] not in self._absent)

    def _widen(self, index: int, near: str, reach: int) -> int:
        """Read further to both sides; where the same gap is then."""
        if self._whole:
            return index
        left = self._entries[index - 1][2] if index else None
        right = self._entries[index][2] if index < len(self._entries) else None
        self._read_near(near, reach + 1)
        found = self._index(right) if right is not None else len(self._entries)
        if found is None and left is not None:
            found = self._index(left)
            return 0 if found is None else found + 1
        return found or 0

    def _end_of_ties(self, key: str) -> int:
        """Read the whole list, if it is not known yet; the index behind all entries that have this key."""
        if not self._whole:
            self._entries = self._read_all()
        return bisect_right(self._entries, key, key=_key)


def _condition(project_id: str, parent_id: str | None) -> tuple[str, list[str]]:
    """The SQL condition of a live task of a list. A subtask always lies in its parent's project."""
    if parent_id is None:
        return "project_id = ? AND parent_id IS NULL AND deleted_at IS NULL", [project_id]
    return "parent_id = ? AND deleted_at IS NULL", [parent_id]
