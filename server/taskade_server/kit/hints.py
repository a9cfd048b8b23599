"""What somebody most likely meant by a word that means nothing here.

Why a list of other words beside the comparison of letters: people who come from other APIs send `page`, `search` or
`order_by`, none of which is spelled like the word that does the same here.
"""

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

MAX_GUESSED: Final = 64
"""Longer words are nobody's slip of the pen, and comparing them takes long."""

NEAR: Final = 0.6
SAME: Final = 0.85
"""Of words that are spelled so alike one is a slip of the other, whatever else it may mean elsewhere."""

_OTHER_WORDS: Final = {
    # of lists
    "cursor after before": "page pages page_number page_token next_page next_page_token next_token next offset skip"
    " starting_after start_after start since_id continuation continuation_token pagetoken pagination",
    "limit": "per_page perpage page_size pagesize size max max_results maxresults page_limit rows take top first n",
    "sort order": "order order_by orderby sort_by sortby ordering sort_order sort_direction direction dir",
    "q": "query search search_query searchterm search_term term terms keyword keywords text s find fulltext match",
    "include": "expand embed embeds populate with relations includes expansions preload",
    "fields": "select only columns field attributes props properties projection",
    "filter": "where filters conditions condition criteria",
    "deleted": "trash trashed in_trash only_deleted include_deleted with_deleted with_trashed is_deleted",
    "count": "total include_total with_count total_count include_count",
    "types events type": "type event event_type event_types topics topic",
    "after since": "since from since_seq after_seq last_event_id",
    "workspace_id": "workspace team team_id organization organization_id org org_id",
    # of objects
    "name": "title summary subject label full_name display_name",
    "description": "content notes note details text body markdown",
    "body": "text content message comment description",
    "assignee": "assigned_to assigned assignee_id assignees owner owner_id responsible user user_id",
    "labels": "tags tag label categories",
    "due_date": "due due_on due_at duedate deadline end end_date due_by",
    "start_date": "start start_on start_at begin starts_at",
    "status": "state column section column_id",
    "project_id": "project board board_id list list_id",
    "parent_id": "parent parent_task parent_task_id parent_task_id",
    "task_id": "task issue issue_id",
    "estimate": "points story_points estimated_hours effort",
    "recurrence": "rrule repeat recurring recurs",
    "blocked_by": "depends_on dependencies blockers",
    "custom_fields": "custom fields custom_field properties metadata",
    "scopes": "permissions scope roles",
    "expires_at": "expiry expires expiration ttl",
    "url": "endpoint target_url callback_url callback address",
    "secret": "signing_secret webhook_secret",
    "value": "secret secret_value token password credential api_key",
    "hosts": "host domain domains hostname hostnames allowed_hosts",
    "enabled": "active is_active disabled",
    # of conditions
    "$eq": "equals equal is = == eq",
    "$ne": "not_equals not_equal neq != <> isnot is_not not",
    "$gt": "> greater greater_than later_than",
    "$gte": ">= => ge min from since at_least on_or_after between range",
    "$lt": "< less less_than earlier_than",
    "$lte": "<= =< le max to until at_most on_or_before",
    "$in": "any any_of one_of in_list",
    "$nin": "not_in notin none_of !in",
    "$contains": "like ilike icontains contain has substring regex matches",
    "$prefix": "startswith starts_with istartswith begins_with",
    "$exists": "isnull is_null null isset is_set present exist",
    "$and": "all && must",
    "$or": "some || should",
    # of paths
    "tasks": "todos todo issues issue items item cards card tickets",
    "projects": "boards board lists list folders",
    "workspaces": "teams team organizations orgs spaces space",
    "users": "people persons members accounts me whoami profile self",
    "api-keys": "keys key tokens token apikeys access_tokens",
    "webhooks": "hooks hook subscriptions",
    "secrets": "secret credentials credential vault",
    "comments": "notes replies",
    "events": "activity activities history feed log",
    "audit": "audit_log auditlog audit_logs",
    "/health": "healthz livez live alive ping status up",
    "/ready": "readyz readiness",
    "/openapi.json": "docs doc swagger swagger_ui swagger_json redoc openapi openapi_yaml api_docs spec schema",
}
_MEANT: Final[dict[str, tuple[str, ...]]] = {}
for _ours, _theirs in _OTHER_WORDS.items():
    for _word in _theirs.split():
        _MEANT[_word] = (*_MEANT.get(_word, ()), *_ours.split())
ADVICE: Final = {
    "cursor": "Lists have no page numbers or offsets: follow the Link header of each answer, which holds the cursor.",
}
"""What a suggested word needs to be understood, in a sentence."""


def near(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word that was most likely meant; None if none is near."""
    if len(word) > MAX_GUESSED:
        return None
    names = list(allowed)
    form = _form(word)
    same = next((name for name in names if _form(name) == form), None)
    if same is not None:
        return same
    close = difflib.get_close_matches(word, names, n=1, cutoff=NEAR)
    if close and difflib.SequenceMatcher(None, close[0], word).ratio() >= SAME:
        return close[0]
    return synonym(word, names) or (close[0] if close else None)


def synonym(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word that means what this one means in other APIs; None if there is none."""
    names = set(allowed)
    return next((other for other in _MEANT.get(_form(word), ()) if other in names), None)


@lru_cache(maxsize=2048)
def _form(word: str) -> str:
    """A word without what conventions of writing differ in: `$orderBy`, `order-by` and `order_by` are the same."""
    if not any(char.isalnum() for char in word):
        return word
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word.lstrip("$@")).lower()
    return re.sub(r"[-_. ]+", "_", snake).strip("_")
