"""Delta sync: what a client has to add, change and forget to have what its user may see, from a token of last time.

Why a token says more than a position: what was sent before depended on the rights of that moment. The token keeps the
position up to which the log is done and the one whose rights the last answer was given by; between the two and now lies
every change that the client has not heard of, of objects and of rights. Rows are always sent as they are now, so
an answer may be asked for again, and nothing is lost by one that never arrived. Everybody else imports from here.
"""

from taskade_server.domain.sync.answering import DEFAULT_LIMIT, MAX_LIMIT, MAX_PROJECTS, begin, proceed
from taskade_server.domain.sync.kinds import BY_DEFAULT, KINDS
from taskade_server.domain.sync.token import DAYS, SyncSelection, Token, accept, seal, unseal

__all__ = [
    "BY_DEFAULT",
    "DAYS",
    "DEFAULT_LIMIT",
    "KINDS",
    "MAX_LIMIT",
    "MAX_PROJECTS",
    "SyncSelection",
    "Token",
    "accept",
    "begin",
    "proceed",
    "seal",
    "unseal",
]
