"""Whoever owns the database changes the audit log, or an export of it, in a thousand ways; each is noticed.

Why also with hashes made anew: an attacker who has read the documentation repairs the tree behind a change. What such a
one lacks is the key of the checkpoints, and those that somebody else has kept.
"""

import asyncio
import base64
import json
import random
from functools import partial

import pytest
from taskade_server.consumers import audit_trees
from taskade_server.domain.projects import PROJECT
from taskade_server.domain.tasks import TASK
from taskade_server.engine import audit_check, log, proofs
from taskade_server.engine.log import Actor, Change
from taskade_server.http.api import audit_proofs
from taskade_server.kit import ids, merkle
from taskade_server.kit.notes import Verifier
from taskade_server.store.tables import access_log as accesses
from taskade_server.store.tables import trees
from taskade_server.store.tables.access_log import Access

from tests.unit.world import HOME, PROJECTS, SECRET, USERS, WORKSPACES, created, found_world, whole

STORED = {"sqlite": 700, "postgresql": 300}
EXPORTED = 1000
SEED = 20_261_128
SIGNER = proofs.signer(SECRET)
VERIFIERS = [Verifier(SIGNER.verifier)]
TABLES = {"changes": ("events", "log_heads"), "access": ("accesses", "access_heads")}


class Undo(Exception):
    """Ends a unit, so that the next one finds the log as it was."""


@pytest.fixture(scope="module")
def logged(db):
    """Two workspaces with some history, covered by trees and checkpoints."""

    def unit(tx):
        if tx.one("SELECT 1 FROM events LIMIT 1"):
            return
        found_world(tx)
        actor = Actor(USERS[0], ids.new("key"), ids.new("req"), "192.0.2.7", "a tool", '{"a":"ü"}')
        for number in range(12):
            project = PROJECTS[number % 3]
            doc = whole(
                TASK,
                id=ids.new("task"),
                workspace_id=HOME[project],
                project_id=project,
                name=f"Ä {number}",
                status="pending",
                priority="none",
                position="b",
            )
            made = created(TASK, **doc)
            log.apply(tx, actor, [made])
            if number % 2:
                log.apply(tx, actor, [Change(TASK, "updated", {**made.doc, "name": "x"}, made.doc, made.n)])
        refused = Access(
            WORKSPACES[0],
            0,
            "",
            "access.denied",
            "denied",
            403,
            "Not so.",
            "tasks.update",
            "task",
            None,
            USERS[1],
            None,
            ids.new("req"),
            1,
            2,
            3,
            "192.0.2.8",
            None,
        )
        accesses.add(tx, [refused._replace(times=times) for times in range(1, 8)])

    db.write_sync(unit)
    asyncio.run(_cover(db))
    assert db.read_sync(partial(audit_check.of_database, verifiers=VERIFIERS)).faults == []
    return db


async def _cover(db):
    await audit_trees.cover(db, SIGNER)


def kept_notes(tx):
    return [note for place in trees.all_logs(tx) for note in trees.checkpoints(tx, *place)]


# ---- in the database -------------------------------------------------------------------------------------------------


class Vandal:
    """Changes one log in one way."""

    def __init__(self, tx, dice):
        self.tx = tx
        self.dice = dice
        self.workspace, self.log = dice.choice(
            [(WORKSPACES[0], "changes"), (WORKSPACES[1], "changes"), (WORKSPACES[0], "access")]
        )
        self.table, self.heads = TABLES[self.log]
        self.head = trees.head(tx, self.workspace, self.log)
        self.seq = dice.randint(1, self.head)
        self.id = self.one("id", self.seq)

    def one(self, column, seq):
        sql = f"SELECT {column} FROM {self.table} WHERE workspace_id = ? AND seq = ?"
        return self.tx.one(sql, (self.workspace, seq))[0]

    def run(self, sql, *params):
        self.tx.run(sql.format(table=self.table, heads=self.heads), params)

    def column(self):
        """Another value in one column."""
        while True:
            name = self.dice.choice([name for name in proofs.COLUMNS[self.log] if name != "seq"])
            old = self.one(name, self.seq)
            new = self.another(old)
            if new is not None or name not in (
                "workspace_id",
                "id",
                "type",
                "resource",
                "object_id",
                "data",
                "action",
                "outcome",
                "at",
                "last_at",
                "times",
            ):
                break
        self.run(f"UPDATE {{table}} SET {name} = ? WHERE workspace_id = ? AND seq = ?", new, self.workspace, self.seq)
        return name

    def another(self, old):
        if isinstance(old, int):
            return old + self.dice.choice([-1, 1])
        if old is None:
            return "x"
        place = self.dice.randrange(len(old))
        return self.dice.choice([None, old + " ", old[:place] + "~" + old[place + 1 :], old[:place] + old[place + 1 :]])

    def delete(self):
        self.run("DELETE FROM {table} WHERE workspace_id = ? AND seq = ?", self.workspace, self.seq)

    def delete_and_close_the_gap(self):
        self.delete()
        for seq in range(self.seq + 1, self.head + 1):
            self.renumber(seq, seq - 1)
        self.shorten(self.head - 1)

    def renumber(self, old, new):
        self.run("UPDATE {table} SET seq = ? WHERE workspace_id = ? AND seq = ?", new, self.workspace, old)

    def shorten(self, head):
        self.run("UPDATE {heads} SET seq = ? WHERE workspace_id = ?", head, self.workspace)

    def insert(self):
        for seq in range(self.head, self.seq - 1, -1):
            self.renumber(seq, seq + 1)
        columns = ", ".join(name for name in proofs.COLUMNS[self.log] if name not in ("seq", "id"))
        self.run(
            f"INSERT INTO {{table}} (seq, id, {columns}) SELECT ?, ?, {columns} FROM {{table}} WHERE"
            " workspace_id = ? AND seq = ?",
            self.seq,
            ids.new("evt"),
            self.workspace,
            self.seq + 1,
        )
        self.shorten(self.head + 1)

    def swap(self):
        other = self.dice.choice([seq for seq in range(1, self.head + 1) if seq != self.seq])
        self.renumber(self.seq, -1)
        self.renumber(other, self.seq)
        self.renumber(-1, other)

    def truncate(self):
        self.run("DELETE FROM {table} WHERE workspace_id = ? AND seq >= ?", self.workspace, self.seq)
        if self.dice.random() < 0.7:
            self.shorten(self.seq - 1)
        if self.dice.random() < 0.5:
            self.repair()

    def repair(self, *, forget=True):
        """Make all hashes anew, as far as that can be done without the key."""
        place = (self.workspace, self.log)
        self.tx.run("DELETE FROM tree_tiles WHERE workspace_id = ? AND log = ?", place)
        self.tx.run(
            "DELETE FROM cursors WHERE reader = ? AND workspace_id = ?", (trees.READERS[self.log], self.workspace)
        )
        tiles = trees.open(self.tx, *place, 0)
        tiles.add([proofs.hashed(entry) for entry in proofs.stored(self.tx, *place)])
        trees.keep(self.tx, *place, tiles)
        if forget and self.dice.random() < 0.5:
            self.no_checkpoint()

    def address_and_hashes(self):
        self.run("UPDATE {table} SET address = '1' WHERE workspace_id = ? AND seq = ?", self.workspace, self.seq)
        self.repair(forget=False)

    def column_and_hashes(self):
        if self.column() not in ("workspace_id",):
            self.repair()

    def swap_and_hashes(self):
        self.swap()
        self.repair()

    def delete_and_hashes(self):
        self.delete_and_close_the_gap()
        self.repair()

    def checkpoint(self):
        self.run(
            "UPDATE checkpoints SET note = replace(note, 'time 2', 'time 1') WHERE workspace_id = ? AND log = ?",
            self.workspace,
            self.log,
        )

    def no_checkpoint(self):
        self.tx.run("DELETE FROM checkpoints WHERE workspace_id = ? AND log = ?", (self.workspace, self.log))

    def tile(self):
        (raw,) = self.tx.one(
            "SELECT hashes FROM tree_tiles WHERE workspace_id = ? AND log = ? AND height = 0",
            (self.workspace, self.log),
        )
        place = self.dice.randrange(len(raw))
        changed = bytes(raw[:place]) + bytes([raw[place] ^ 1]) + bytes(raw[place + 1 :])
        self.tx.run(
            "UPDATE tree_tiles SET hashes = ? WHERE workspace_id = ? AND log = ? AND height = 0",
            (self.dice.choice([changed, raw[:-32]]), self.workspace, self.log),
        )


WAYS = [
    "column",
    "delete",
    "delete_and_close_the_gap",
    "insert",
    "swap",
    "truncate",
    "column_and_hashes",
    "swap_and_hashes",
    "delete_and_hashes",
    "checkpoint",
    "no_checkpoint",
    "tile",
]


def test_whatever_is_changed_in_the_database_is_noticed(logged):
    """Each way as often, with one verification each; the checkpoints of before are kept elsewhere."""
    dice = random.Random(SEED)
    elsewhere = logged.read_sync(kept_notes)
    unnoticed = []

    def unit(tx, way):
        vandal = Vandal(tx, dice)
        getattr(vandal, way)()
        report = audit_check.of_database(tx, VERIFIERS, elsewhere)
        if not report.faults:
            unnoticed.append((way, vandal.workspace, vandal.log, vandal.seq))
        if way == "column":
            told = [fault for fault in report.faults if f"number {vandal.seq:,}" in fault]
            assert told, (vandal.seq, report.faults)
        raise Undo

    for number in range(STORED[logged.dialect]):
        with pytest.raises(Undo):
            logged.write_sync(partial(unit, way=WAYS[number % len(WAYS)]))
    assert unnoticed == []
    assert logged.read_sync(partial(audit_check.of_database, verifiers=VERIFIERS, given=elsewhere)).faults == []


def faults_after(db, way, seed=1):
    found = []

    def unit(tx):
        vandal = Vandal(tx, random.Random(seed))
        getattr(vandal, way)()
        found.extend([vandal, audit_check.of_database(tx, VERIFIERS).faults])
        raise Undo

    with pytest.raises(Undo):
        db.write_sync(unit)
    return found


def test_a_changed_entry_is_named(logged):
    vandal, faults = faults_after(logged, "column", 4)
    assert len(faults) == 1 and f"number {vandal.seq}: the entry" in faults[0] and faults[0].endswith("was changed.")


def test_a_deleted_entry_is_named(logged):
    vandal, faults = faults_after(logged, "delete")
    assert faults == [f"{vandal.workspace} {vandal.log}: number {vandal.seq} is missing."]


def test_two_entries_that_changed_places_are_named(logged):
    vandal, faults = faults_after(logged, "swap")
    assert len(faults) == 2 and all("was moved here from number" in fault for fault in faults)
    assert any(f"the entry {vandal.id} was moved here from number {vandal.seq}." in fault for fault in faults)


def test_an_entry_that_was_put_in_is_named(logged):
    vandal, faults = faults_after(logged, "insert")
    assert any(f"number {vandal.seq}: the entry evt_" in fault and "put in" in fault for fault in faults)


def test_a_removed_entry_is_named_although_the_gap_was_closed(logged):
    vandal, faults = faults_after(logged, "delete_and_close_the_gap", 3)
    assert vandal.seq < vandal.head
    assert any(f"number {vandal.seq}:" in fault and "was removed" in fault for fault in faults), faults


def test_hashes_made_anew_do_not_lead_to_the_signed_root(logged):
    vandal, faults = faults_after(logged, "address_and_hashes")
    assert len(faults) == 1 and "do not lead to the root that was signed at" in faults[0], faults
    assert faults[0].startswith(f"{vandal.workspace} {vandal.log}: among the numbers 1 to {vandal.head}")


def test_new_entries_are_covered_without_making_the_tree_anew(logged):
    before = logged.read_sync(kept_notes)

    def add(tx):
        made = created(PROJECT, id=ids.new("proj"), workspace_id=WORKSPACES[1], name="Another", statuses=[])
        log.apply(tx, Actor(USERS[0]), [made])

    logged.write_sync(add)
    fresh = logged.read_sync(lambda tx: proofs.tree(tx, WORKSPACES[1], "changes"))
    asyncio.run(_cover(logged))
    kept = logged.read_sync(
        lambda tx: merkle.root(trees.open(tx, WORKSPACES[1], "changes", fresh.size).node, fresh.size)
    )
    assert kept == merkle.root(fresh.node, fresh.size), "on demand and in the background it is the same tree"
    report = logged.read_sync(partial(audit_check.of_database, verifiers=VERIFIERS, given=before))
    assert report.faults == [] and report.checkpoints > len(before)


def test_a_tree_that_somebody_else_has_grown_is_left_alone(logged):
    """Two processes may cover the same entries: the one that comes second finds the cursor moved and does nothing."""

    def add(tx):
        made = created(PROJECT, id=ids.new("proj"), workspace_id=WORKSPACES[1], name="Another", statuses=[])
        log.apply(tx, Actor(USERS[0]), [made])

    logged.write_sync(add)

    async def both():
        return await asyncio.gather(audit_trees.cover(logged, SIGNER), audit_trees.cover(logged, SIGNER))

    assert sum(asyncio.run(both())) == 1
    assert logged.read_sync(partial(audit_check.of_database, verifiers=VERIFIERS)).faults == []


# ---- in an export ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lines(logged):
    """An export of everything, line by line."""

    def read(tx):
        found = [audit_proofs.header(SECRET, WORKSPACES[0])]
        for name in ("changes", "access"):
            part = audit_proofs.share(tx, SECRET, WORKSPACES[0], name, None, None)
            found.append(json.dumps(part.proof) + "\n")
            found += [audit_proofs.line(entry) for entry in proofs.read(tx, WORKSPACES[0], name, 0, part.last, 1000)]
        return found

    return logged.read_sync(read)


def export_faults(lines, given=()):
    return audit_check.of_export([line.encode() for line in lines], list(VERIFIERS), given).faults


def vandalised(lines, dice):
    """An export that was changed in one way."""
    lines = list(lines)
    places = [place for place, line in enumerate(lines) if '"leaf"' in line]
    place, other = dice.sample(places, 2)
    entry = json.loads(lines[place])
    way = dice.choice(
        [
            "column",
            "column and hash",
            "no column",
            "another column",
            "delete",
            "copy",
            "swap",
            "truncate",
            "proof",
            "first line",
            "nonsense",
            "seq",
        ]
    )
    columns = entry["entry"]
    name = dice.choice([name for name in columns if name not in ("workspace_id",)])
    if way in ("column", "column and hash"):
        columns[name] = columns[name] + 1 if isinstance(columns[name], int) else columns[name] + " "
    elif way == "no column":
        del columns[name]
    elif way == "another column":
        columns["colour"] = "red"
    elif way == "seq":
        columns["seq"] = str(columns["seq"])
    if way == "column and hash":
        hashed = merkle.leaf_hash(proofs.leaf(entry["log"], columns))
        entry["leaf"] = base64.b64encode(hashed).decode()
    lines[place] = json.dumps(entry) + "\n"
    if way == "delete":
        del lines[place]
    elif way == "copy":
        lines.insert(other, lines[place])
    elif way == "swap":
        lines[place], lines[other] = lines[other], lines[place]
    elif way == "truncate":
        del lines[dice.randrange(1, len(lines)) :]
    elif way == "first line":
        del lines[0]
    elif way == "nonsense":
        lines.insert(place, dice.choice(["x\n", "[]\n", "{}\n", '{"log":"changes"}\n', "\x00\n", "1\n"]))
    elif way == "proof":
        where = dice.choice([number for number, line in enumerate(lines) if '"proof"' in line])
        proof = json.loads(lines[where])
        member = dice.choice(["log", "first", "last", "size", "checkpoint"])
        value = proof["proof"][member]
        proof["proof"][member] = value + dice.choice([1, -1]) if isinstance(value, int) else value[:-2]
        lines[where] = json.dumps(proof) + "\n"
    return way, lines


def test_whatever_is_changed_in_an_export_is_noticed(lines):
    dice = random.Random(SEED)
    assert export_faults(lines) == []
    unnoticed = []
    for _ in range(EXPORTED):
        way, changed = vandalised(lines, dice)
        if changed != lines and not export_faults(changed):
            unnoticed.append((way, changed))
    assert [way for way, _ in unnoticed] == []


def test_an_export_is_compared_with_a_checkpoint_that_was_kept(logged, lines):
    notes = logged.read_sync(lambda tx: trees.checkpoints(tx, WORKSPACES[0], "changes"))
    assert export_faults(lines, notes) == []
    forged = proofs.checkpoint(WORKSPACES[0], "changes", _tree_of(b"another"), 0)
    assert export_faults(lines, [SIGNER.sign(forged.text())])
    unsigned = notes[0].replace("\n1", "\n2", 1) if "\n1" in notes[0] else notes[0].replace("time", "tame")
    assert export_faults(lines, [unsigned])


def _tree_of(*leaves):
    tiles = merkle.Tiles(lambda height, number: b"", 0)
    tiles.add([merkle.leaf_hash(leaf) for leaf in leaves])
    return tiles


def test_an_entry_can_be_hashed_by_what_the_guide_says():
    columns = {"workspace_id": "ws_1", "seq": 7, "id": "evt_1", "type": "task.updated", "data": "ü", "previous": None}
    assert proofs.leaf("changes", columns) == (
        b"taskade.audit/changes/v1\nworkspace_id 4\nws_1\nseq 1\n7\nid 5\nevt_1\ntype 12\ntask.updated\n"
        b"data 2\n\xc3\xbc\n"
    )
    for wrong in ({"colour": "red"}, {"seq": "7"}, {"seq": True}, {"data": 1}):
        with pytest.raises(ValueError):
            proofs.leaf("changes", {**columns, **wrong})
