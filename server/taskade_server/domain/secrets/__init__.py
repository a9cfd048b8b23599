"""Secrets: credentials of other systems, kept encrypted, for automations to send and for nobody to read.

Why the hosts belong to the secret: who may name it in a request decides where the request goes, and must not carry the
value off by that. Everybody else imports from here.
"""

from taskade_server.domain.secrets.changing import create, delete, delete_abandoned, update
from taskade_server.domain.secrets.masking import mask
from taskade_server.domain.secrets.opening import open_for, require_host
from taskade_server.domain.secrets.resources import MAX_SECRETS, MAX_VALUE, SECRET
from taskade_server.domain.secrets.undoing import cannot_be_undone_because

__all__ = [
    "MAX_SECRETS",
    "MAX_VALUE",
    "SECRET",
    "cannot_be_undone_because",
    "create",
    "delete",
    "delete_abandoned",
    "mask",
    "open_for",
    "require_host",
    "update",
]
