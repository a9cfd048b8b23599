"""The only writer: a row cannot change without its event, because `apply` does both in one transaction.

Why one function: webhooks, live streams, sync and audit read the events, so whoever could change a row elsewhere
would make all of them lie. `seq` is gapless per workspace and in commit order on both databases, because the
workspace's counter row is updated last in the transaction and stays locked until the commit is visible.
`apply` is in `applying`. Everybody else imports from here.
"""

from taskade_server.engine.log.appending import (
    Written,
    commit_seqs,
    part,
    rights_changes,
    scopes_written,
    size_written,
    written,
)
from taskade_server.engine.log.applying import EVENT_STEPS, ROW_STEPS, apply
from taskade_server.engine.log.change import Actor, Change
from taskade_server.engine.log.event import STORED, Event, Sight
from taskade_server.engine.log.reading import (
    MAX_PAGE_TEXT,
    MAX_SEQ,
    MAX_WHOLE_TEXT,
    State,
    Touch,
    bounds,
    changes_of_rights,
    ever_used,
    find,
    head,
    heads,
    lock,
    newest,
    of_key,
    of_request,
    open_projects,
    read_after,
    select,
    seq_before,
    state_at,
    touches,
    was_absent,
    with_sight,
)
from taskade_server.engine.log.rows import SIDE_STEPS, WORDS_A_STEP, WRITTEN_A_STEP, renew_texts
from taskade_server.engine.log.state import bump_rights_version, generation, rights_version

__all__ = [
    "EVENT_STEPS",
    "MAX_PAGE_TEXT",
    "MAX_SEQ",
    "MAX_WHOLE_TEXT",
    "ROW_STEPS",
    "SIDE_STEPS",
    "STORED",
    "WORDS_A_STEP",
    "WRITTEN_A_STEP",
    "Actor",
    "Change",
    "Event",
    "Sight",
    "State",
    "Touch",
    "Written",
    "apply",
    "bounds",
    "bump_rights_version",
    "changes_of_rights",
    "commit_seqs",
    "ever_used",
    "find",
    "generation",
    "head",
    "heads",
    "lock",
    "newest",
    "of_key",
    "of_request",
    "open_projects",
    "part",
    "read_after",
    "renew_texts",
    "rights_changes",
    "rights_version",
    "scopes_written",
    "select",
    "seq_before",
    "size_written",
    "state_at",
    "touches",
    "was_absent",
    "with_sight",
    "written",
]
