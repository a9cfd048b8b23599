"""Projects, their statuses, custom field definitions and members; and templates, from which projects are made.

Why a project carries its workflow: a status means something only inside its project, so tasks ask the project what
is done and what is not, and a template can bring a whole way of working along. Everybody else imports from here.
"""

from taskade_server.domain.projects.blueprints import (
    add_builtin_templates,
    builtin_templates,
    check_template_size,
    create_template,
    delete_template,
    require_sound_template,
    restore_template,
    update_template,
)
from taskade_server.domain.projects.inbox import create_inbox, find_inbox, return_to_inbox
from taskade_server.domain.projects.lifecycle import archive, create, delete, restore, update
from taskade_server.domain.projects.members import MAX_MEMBERS, add_member, change_member, remove_member
from taskade_server.domain.projects.resources import (
    CATEGORIES,
    CUSTOM,
    DEFAULT_STATUSES,
    FIELD_TYPES,
    KEY,
    MAX_TEMPLATE_TASKS,
    PRIORITIES,
    PROJECT,
    TEMPLATE,
    TYPES,
)
from taskade_server.domain.projects.rights import visible
from taskade_server.domain.projects.workflow import dates_cross, first_status, status_category

__all__ = [
    "CATEGORIES",
    "CUSTOM",
    "DEFAULT_STATUSES",
    "FIELD_TYPES",
    "KEY",
    "MAX_MEMBERS",
    "MAX_TEMPLATE_TASKS",
    "PRIORITIES",
    "PROJECT",
    "TEMPLATE",
    "TYPES",
    "add_builtin_templates",
    "add_member",
    "archive",
    "builtin_templates",
    "change_member",
    "check_template_size",
    "create",
    "create_inbox",
    "create_template",
    "dates_cross",
    "delete",
    "delete_template",
    "find_inbox",
    "first_status",
    "remove_member",
    "require_sound_template",
    "restore",
    "restore_template",
    "return_to_inbox",
    "status_category",
    "update",
    "update_template",
    "visible",
]
