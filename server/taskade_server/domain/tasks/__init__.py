"""Tasks and comments: the units of work, with everything that happens to them.

A file for each operation; everybody else imports from here. Why every change of a task goes through
`writing.write_changes`: completion, assignment and moves emit their own events beside `task.updated`, and a path that
set a status without passing there would complete a task that nobody hears of.
"""

from taskade_server.domain.tasks.bulk import delete_bulk, require_condition, selection, update_bulk, update_each
from taskade_server.domain.tasks.changing import restore_values, set_status, update
from taskade_server.domain.tasks.comments import create_comment, delete_comment, restore_comment, update_comment
from taskade_server.domain.tasks.creating import create, create_bulk
from taskade_server.domain.tasks.deleting import delete, restore
from taskade_server.domain.tasks.hierarchy import descendant_ids
from taskade_server.domain.tasks.limits import MAX_BULK, MAX_LEVELS
from taskade_server.domain.tasks.moving import move
from taskade_server.domain.tasks.recurring import is_successor
from taskade_server.domain.tasks.resources import COMMENT, TASK
from taskade_server.domain.tasks.templates import instantiate

__all__ = [
    "COMMENT",
    "MAX_BULK",
    "MAX_LEVELS",
    "TASK",
    "create",
    "create_bulk",
    "create_comment",
    "delete",
    "delete_bulk",
    "delete_comment",
    "descendant_ids",
    "instantiate",
    "is_successor",
    "move",
    "require_condition",
    "restore",
    "restore_comment",
    "restore_values",
    "selection",
    "set_status",
    "update",
    "update_bulk",
    "update_comment",
    "update_each",
]
