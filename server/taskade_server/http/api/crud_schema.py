"""What the operations that all resources have say about themselves in the OpenAPI document."""

from dataclasses import dataclass, replace
from typing import Any, Final

from taskade_server.http.api.document import Document, Examples

LIST: Final = Document(
    notes="Without `sort`, the order is that of creation, or that of the time which the filter limits. A page holds"
    " `limit` of them, and `Link` has the address of the next page."
)
GET: Final = Document(notes="With `If-None-Match` and the ETag of an earlier response, the response is 304.")
RESTORE: Final = Document(notes="Whatever went to the trash together with it comes back as well.")
DELETE: Final = Document(notes="It can be restored for 30 days. Whatever belongs to it goes to the trash as well.")
FIRST_TEN: Final[Examples] = {"newest": ("The newest ten", {"sort": "-created_at", "limit": 10})}
RENAME: Final[Examples] = {"rename": ("Change one member", {"name": "A better name"})}
_CREATE: Final = "`Location` has the address of the new object. The client may choose its `id`."
_MERGE: Final = "A JSON merge patch (RFC 7396): what is left out stays as it is, null clears, objects merge."
_QUERY: Final = "A list whose parameters are a JSON document instead of a part of the URL."


@dataclass(frozen=True, slots=True)
class ResourceDocuments:
    """The documents of the operations that differ between resources."""

    create: Document
    patch: Document
    put: Document
    query: Document
    query_post: Document
    delete: Document = DELETE


def documents(
    *, create: Examples, update: Examples, query: Examples = FIRST_TEN, created: Document | None = None, **more: Any
) -> ResourceDocuments:
    """The documents of a resource, from examples of its bodies. `created` has what creation needs beside examples."""
    created = created or Document()
    notes = f"{_CREATE} {created.notes}".strip()
    return ResourceDocuments(
        create=replace(created, notes=notes, examples=create),
        patch=Document(
            notes=f"{_MERGE} The content type may also be `application/merge-patch+json`, or"
            " `application/json-patch+json` with a JSON Patch (RFC 6902) as the body.",
            examples=update,
        ),
        put=Document(notes=f"PUT is the same as PATCH. {_MERGE}", examples=update),
        query=Document(notes=_QUERY, examples=query),
        query_post=Document(
            notes=f"{_QUERY} POST is for clients that cannot send the method QUERY (RFC 10008).", examples=query
        ),
        **more,
    )
