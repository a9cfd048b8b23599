"""What a resource is: one declaration from which validation, JSON Schema, SQL columns and filters all follow.

Why one declaration: a field that is validated, stored, documented and filtered by four different lists will sooner or
later differ in one of them. Everybody else imports from here.
"""

from taskade_server.engine.model.checking import Checker
from taskade_server.engine.model.declaration import REGISTRY, Relation, Resource
from taskade_server.engine.model.documents import NOTHING, merge_patch
from taskade_server.engine.model.faults import Faults
from taskade_server.engine.model.fields import (
    MAX_INTEGER,
    SIDE_VALUE_BEGINNING,
    SIDE_VALUE_LENGTH,
    Field,
    Kind,
    canonical,
    day_column,
    side_value,
)
from taskade_server.engine.model.values import (
    CUSTOM_KEY,
    MAX_CUSTOM_FIELDS,
    MAX_CUSTOM_KEY,
    MAX_CUSTOM_LIST,
    MAX_CUSTOM_TEXT,
)

__all__ = [
    "CUSTOM_KEY",
    "MAX_CUSTOM_FIELDS",
    "MAX_CUSTOM_KEY",
    "MAX_CUSTOM_LIST",
    "MAX_CUSTOM_TEXT",
    "MAX_INTEGER",
    "NOTHING",
    "REGISTRY",
    "SIDE_VALUE_BEGINNING",
    "SIDE_VALUE_LENGTH",
    "Checker",
    "Faults",
    "Field",
    "Kind",
    "Relation",
    "Resource",
    "canonical",
    "day_column",
    "merge_patch",
    "side_value",
]
