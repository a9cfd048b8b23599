"""Undo: the inverse of changes in the log, made by the same verbs that anybody would use, in one transaction.

Why by the verbs: an old document is not simply written back. Undoing is a change of its own, so it needs the right to
make it, keeps the rules of today (statuses, cycles, the last owner), and tells its events to everybody who listens.
Everybody else imports from here.
"""

from taskade_server.domain.undo.reverting import MAX_CHANGES, revert

__all__ = [
    "MAX_CHANGES",
    "revert",
]
