"""Looks for what was changed, removed, put in or moved in an audit log, and says which entry it was.

Why two things are compared: the kept hashes of the entries say which one does not fit, and the signed checkpoints say
whether the hashes themselves can be believed. Who changes an entry has to change its hash, then every hash above it,
and then lacks the key that signed the root.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from taskade_server.engine import proofs
from taskade_server.kit import merkle, notes
from taskade_server.kit.merkle import Frontier
from taskade_server.kit.notes import BadNote, Checkpoint, Verifier
from taskade_server.kit.strict_json import decode_strict
from taskade_server.store.database import Tx
from taskade_server.store.tables import trees

MAX_MISFITS: Final = 60
"""How many entries that do not fit are compared with each other, to see which were moved."""

Kept = Callable[[int], bytes | None]


@dataclass(slots=True)
class Walk:
    """One log, entry by entry in the order in which it lies there; `finish` gives what was found.

    `kept` gives the hash that was kept of a missing entry by its number, `checkpoints` what was signed of this log. It
    begins behind `before` entries, of which the `left` subtrees are known.
    """

    log: str
    name: str
    kept: Kept
    checkpoints: Sequence[Checkpoint]
    before: int = 0
    left: Sequence[tuple[int, bytes]] = ()
    looked_at: int = 0
    compared: int = 0
    faults: list[str] = field(default_factory=list)
    last: int = 0
    _frontier: Frontier = field(default_factory=Frontier)
    _misfits: dict[int, tuple[Mapping[str, Any], bytes]] = field(default_factory=dict)
    _waiting: list[Checkpoint] = field(default_factory=list)
    _sound: int = 0
    _broken: bool = False

    def __post_init__(self) -> None:
        self.last = self.before
        for level, hashed in self.left:
            self._frontier.add(hashed, level)
        self._waiting = sorted(self.checkpoints, key=lambda one: one.size, reverse=True)
        while self._waiting and self._waiting[-1].size < self.before:
            self._waiting.pop()
        self._compare()

    def entry(self, columns: Mapping[str, Any], kept: bytes | None) -> None:
        """The next entry, by its columns, and the hash that was kept of it."""
        self.looked_at += 1
        seq, what = columns.get("seq"), str(columns.get("id"))
        if type(seq) is not int:
            self._wrong(self.last + 1, f"the entry {what} has no number")
            return
        if seq <= self.last:
            self._wrong(seq, f"the entry {what} is there a second time, or out of order")
            return
        if seq > self.last + 1:
            self._missing(self.last + 1, seq - 1)
        try:
            hashed = merkle.leaf_hash(proofs.leaf(self.log, columns))
        except ValueError as error:
            self._wrong(seq, f"the entry {what} is none: {error}")
            hashed = b""
        if kept is not None and hashed and hashed != kept:
            self._misfits[seq] = (columns, kept)
        self._grow(seq, kept or hashed)

    def finish(self, end: int, right: Sequence[tuple[int, bytes]] = ()) -> list[str]:
        """There is no more. The log has `end` entries in all, the rest of which are `right`."""
        if self.last < end:
            self._missing(self.last + 1, end)
        if not self._broken:
            try:
                for level, hashed in right:
                    self._frontier.add(hashed, level)
            except ValueError:
                self._wrong(self.last, "the hashes of what follows do not fit behind this number")
                self._broken = True
        self._compare()
        longest = max((one.size for one in self._waiting), default=0)
        if longest > self._frontier.size and not self._broken:
            when = next(one.time for one in self._waiting if one.size == longest)
            span = _span(self._frontier.size + 1, longest)
            self.faults.append(f"{self.name}: {span} removed from the end: the checkpoint of {when} has {longest:,}.")
        self._explain()
        return self.faults

    # -- inside

    def _grow(self, seq: int, hashed: bytes) -> None:
        self.last = seq
        if not hashed or self._broken:
            self._broken = True
            return
        self._frontier.add(hashed)
        self._compare()

    def _missing(self, first: int, last: int) -> None:
        self.faults.append(f"{self.name}: {_span(first, last)} missing.")
        for seq in range(first, last + 1):
            hashed = None if self._broken else self.kept(seq)
            if hashed is None:
                self._broken = True
                break
            self._grow(seq, hashed)
        self.last = last

    def _compare(self) -> None:
        """Compare the root with what was signed of this size."""
        while self._waiting and self._waiting[-1].size <= self._frontier.size:
            signed = self._waiting.pop()
            if signed.size != self._frontier.size or self._broken:
                continue
            self.compared += 1
            if self._frontier.root() == signed.root:
                self._sound = signed.size
                continue
            span = f"numbers {self._sound + 1:,} to {signed.size:,}"
            self.faults.append(
                f"{self.name}: among the {span} something was changed together with its hash:"
                f" they do not lead to the root that was signed at {signed.time}."
            )
            self._broken = True

    def _explain(self) -> None:
        """Say of each entry that does not fit whether it was changed, moved, put in, or stands in another's place."""
        some = dict(list(self._misfits.items())[:MAX_MISFITS])
        cameto: dict[int, int] = {}
        for seq, (columns, _) in some.items():
            for place, (_, kept) in some.items():
                moved = {**columns, "seq": place}
                if place != seq and merkle.leaf_hash(proofs.leaf(self.log, moved)) == kept:
                    cameto[place] = seq
        came = {seq: place for place, seq in cameto.items()}
        for seq, (columns, _) in some.items():
            what = f"the entry {columns.get('id')}"
            if seq in came:
                self._wrong(seq, f"{what} was moved here from number {came[seq]:,}")
            elif seq in cameto:
                self._wrong(seq, f"{what} was put in here")
            else:
                self._wrong(seq, f"{what} was changed")
            if seq in came and seq not in cameto:
                self._wrong(seq, "the entry that was here was removed")
        if len(self._misfits) > len(some):
            rest = len(self._misfits) - len(some)
            self.faults.append(f"{self.name}: {rest:,} more entries do not fit, up to number {max(self._misfits):,}.")

    def _wrong(self, seq: int, text: str) -> None:
        self.faults.append(f"{self.name}, number {seq:,}: {text}.")


def _span(first: int, last: int) -> str:
    return f"number {first:,} is" if first == last else f"numbers {first:,} to {last:,} are"


# ---- in the database -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """What was looked at, and what is wrong, one clear line for each fault."""

    entries: int = 0
    logs: int = 0
    checkpoints: int = 0
    faults: list[str] = field(default_factory=list)


def of_database(
    tx: Tx, verifiers: Sequence[Verifier] = (), given: Sequence[str] = (), only: str | None = None
) -> Report:
    """Look at every log of a database. `given` are notes that somebody has kept elsewhere.

    Without verifiers signatures are not looked at.
    """
    report = Report()
    outside = [_checkpoint(note, verifiers, "a given checkpoint", report) for note in given]
    for workspace_id, log in trees.all_logs(tx):
        if only is not None and workspace_id != only:
            continue
        name = label(workspace_id, log)
        signed = [_checkpoint(note, verifiers, name, report) for note in trees.checkpoints(tx, workspace_id, log)]
        mine = [
            one for one in [*signed, *outside] if one is not None and one.origin == proofs.origin(workspace_id, log)
        ]
        report.faults += [
            f"{name}: a checkpoint of another log, {one.origin}, lies here."
            for one in signed
            if one is not None and one.origin != proofs.origin(workspace_id, log)
        ]
        _look(tx, workspace_id, log, mine, report)
    known = {proofs.origin(*one) for one in trees.all_logs(tx)}
    for one in outside:
        if one is not None and one.origin not in known and (only is None or f"/{only}/" in one.origin):
            report.faults.append(f"{one.origin}: there is no such log any more, but a checkpoint of {one.time}.")
    return report


def _look(tx: Tx, workspace_id: str, log: str, signed: list[Checkpoint], report: Report) -> None:
    size, head = trees.size(tx, workspace_id, log), trees.head(tx, workspace_id, log)
    tiles = trees.open(tx, workspace_id, log, size)

    def kept(seq: int) -> bytes | None:
        if not 0 < seq <= size:
            return None
        try:
            return tiles.node(0, seq - 1)
        except ValueError:
            return None

    walk = Walk(log, label(workspace_id, log), kept, signed)
    for entry in proofs.stored(tx, workspace_id, log):
        walk.entry(proofs.columns_of(entry), kept(entry.seq))
    faults = walk.finish(max(head, size))
    newest = f"\n{size}\n"
    if size and size == head and not any(newest in note for note in trees.checkpoints(tx, workspace_id, log)):
        faults.append(f"{walk.name}: there is no checkpoint of the newest entries, though one was signed.")
    if walk.last > head:
        faults.append(f"{walk.name}: it ends at number {walk.last:,}, but should at {head:,}.")
    try:
        whole = merkle.root(tiles.node, size)
        again = Frontier()
        for seq in range(1, size + 1):
            again.add(tiles.node(0, seq - 1))
        if again.root() != whole:
            faults.append(f"{walk.name}: the kept tree of {size:,} entries is damaged above its leaves.")
    except ValueError:
        faults.append(f"{walk.name}: the kept tree of {size:,} entries is not whole.")
    report.logs += 1
    report.entries += walk.looked_at
    report.checkpoints += walk.compared
    report.faults += faults


def label(workspace_id: str, log: str) -> str:
    """What a log is called in a sentence."""
    return f"{workspace_id or proofs.INSTALLATION} {log}"


def _checkpoint(note: str, verifiers: Sequence[Verifier], name: str, report: Report) -> Checkpoint | None:
    """What a note says, if it is signed; a fault otherwise."""
    problem = ""
    for verifier in verifiers:
        try:
            return notes.checkpoint_of(verifier.verified(note))
        except BadNote as error:
            problem = problem or str(error)
    try:
        found = notes.checkpoint_of(note)
    except BadNote as error:
        report.faults.append(f"{name}: {error}")
        return None
    if verifiers:
        report.faults.append(f"{name}: the checkpoint of {found.time} with {found.size:,} entries: {problem}")
        return None
    return found


# ---- in an export ----------------------------------------------------------------------------------------------------


def of_export(lines: Iterable[bytes], verifiers: list[Verifier], given: Sequence[str] = ()) -> Report:
    """Look at an export (JSON Lines), without the server.

    Without verifiers the key in the file itself is believed, and added to them.
    """
    report = Report()
    reader = _Export(report, verifiers, list(given))
    for number, text in enumerate(lines, 1):
        if text.strip():
            reader.line(number, text)
    reader.finish()
    return report


_PROOF: Final = {"log", "first", "last", "size", "left", "right", "checkpoint"}


class _Export:
    """One export, line by line: its first line, then for each log the proof and the entries behind it."""

    def __init__(self, report: Report, verifiers: list[Verifier], given: list[str]) -> None:
        self.report = report
        self.verifiers = verifiers
        self._given = given
        self._outside: list[Checkpoint] = []
        self._workspace_id: str | None = None
        self._proven: set[str] = set()
        self._walk: Walk | None = None
        self._last = 0
        self._right: list[tuple[int, bytes]] = []

    def line(self, number: int, text: bytes) -> None:
        """The next line."""
        try:
            document = decode_strict(text)
            if not isinstance(document, dict):
                raise ValueError("it is no object")
            if set(document) == {"audit_export"}:
                self._header(document["audit_export"])
            elif set(document) == {"proof"}:
                self._proof(document["proof"])
            elif set(document) == {"log", "leaf", "entry"}:
                self._entry(document)
            else:
                raise ValueError("it is neither an entry nor a proof")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.report.faults.append(f"line {number:,}: this is no line of an export: {_words(error)}")

    def finish(self) -> None:
        """There is no more."""
        self._close()
        if self._workspace_id is None:
            self.report.faults.append("The file does not begin as an export does.")
        for log in sorted(set(proofs.COLUMNS) - self._proven):
            self.report.faults.append(f"{log}: the proof of this log is missing, so the file is not whole.")

    def _header(self, document: Mapping[str, Any]) -> None:
        if self._workspace_id is not None or self._proven or document["version"] != 1:
            raise ValueError("an export has one first line, of version 1")
        self._workspace_id = document["workspace_id"] or ""
        if not self.verifiers:
            self.verifiers.append(Verifier(document["key"]))
        elif document["key"] not in [one.text for one in self.verifiers]:
            self.report.faults.append("The export names another key than the one that is trusted.")
        outside = [_checkpoint(note, self.verifiers, "a given checkpoint", self.report) for note in self._given]
        self._outside = [one for one in outside if one is not None]

    def _entry(self, document: Mapping[str, Any]) -> None:
        walk = self._walk
        if walk is None or document["log"] != walk.log:
            raise ValueError("there is no proof of its log in front of the entry")
        if document["entry"]["workspace_id"] != self._workspace_id:
            raise ValueError("the entry is of another workspace")
        walk.entry(document["entry"], base64.b64decode(document["leaf"], validate=True))

    def _proof(self, document: Mapping[str, Any]) -> None:
        self._close()
        if self._workspace_id is None or set(document) != _PROOF:
            raise ValueError("a proof has other members, or no first line in front of it")
        log, first, last, size = (document[name] for name in ("log", "first", "last", "size"))
        if log not in proofs.COLUMNS or log in self._proven:
            raise ValueError("there is one proof for each log")
        self._proven.add(log)
        name, origin = label(self._workspace_id, log), proofs.origin(self._workspace_id, log)
        signed = _checkpoint(document["checkpoint"], self.verifiers, name, self.report)
        if signed is None or signed.origin != origin or signed.size != size:
            raise ValueError("the proof has no signed checkpoint of this log and size")
        if not 1 <= first <= last + 1 <= size + 1:
            raise ValueError("the numbers of the proof do not fit")
        left = list(_subtrees(document["left"], 0, first - 1))
        self._right, self._last = list(_subtrees(document["right"], last, size)), last
        mine = [one for one in self._outside if one.origin == origin]
        for one in mine:
            if not first - 1 <= one.size <= last and one.size != size:
                text = f"{name}: the checkpoint of {one.time} with {one.size:,} entries lies outside of this export"
                self.report.faults.append(f"{text}, so that it cannot be compared.")
        self._walk = Walk(log, name, lambda seq: None, [signed, *mine], first - 1, left)

    def _close(self) -> None:
        """The log that was being read is over."""
        walk, self._walk = self._walk, None
        if walk is None:
            return
        if walk.last > self._last:
            self.report.faults.append(f"{walk.name}: the file goes on beyond number {self._last:,}.")
        self.report.faults += walk.finish(self._last, self._right)
        self.report.logs += 1
        self.report.entries += walk.looked_at
        self.report.checkpoints += walk.compared


def _subtrees(hashes: Sequence[str], first: int, last: int) -> Iterator[tuple[int, bytes]]:
    places = list(merkle.subtrees(first, last))
    if len(places) != len(hashes):
        raise ValueError("the hashes of a proof are not as many as its numbers need")
    for (level, _), hashed in zip(places, hashes, strict=True):
        yield level, base64.b64decode(hashed, validate=True)


def _words(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if text.endswith(".") else f"{text}."
