"""Parameters of requests in the OpenAPI document: those that follow from what a route is declared to do."""

from typing import Final

from taskade_server.domain import identity
from taskade_server.domain.resources import RESOURCES
from taskade_server.engine import filter_schema, query, schema
from taskade_server.engine.model import CUSTOM_KEY, Resource
from taskade_server.engine.schema import Schema, ref, sample_id, title
from taskade_server.http.api.route import Route


def operation_parameters(route: Route) -> list[Schema]:
    """The parameters of an operation; all but its filters are references to components."""
    name = title(route.resource) if route.resource else ""
    found = [*_path_parameters(route), *route.document.parameters]
    if route.listing:
        found += [f"{name}Sort", "Limit", "Cursor", "Count", "Timezone"]
        found += ["Search"] if route.about.search else []
        found += ["Deleted"] if route.about.trash else []
    if route.body == "query":
        found.append("Cursor")
    elif is_shaped(route):
        found += [f"{name}Include", f"{name}Fields"] if route.about.relations else [f"{name}Fields"]
    if route.method == "GET" and route.path.endswith("/{id}") and route.answer == "one":
        found.append("AsOf")
    if route.method == "GET" and route.document.cached:
        found.append("IfNoneMatch")
    if route.versioned:
        found += ["IfMatch", "UnlessMatch"]
    if route.rolls_back:
        found.append("Prefer")
    else:
        found += ["DryRun", "IdempotencyKey", "Prefer"] if route.writes else ["MinSeq"]
    references = [{"$ref": f"#/components/parameters/{name}"} for name in found]
    return references + (_filter_parameters(route.about) if route.listing else [])


def is_shaped(route: Route) -> bool:
    """Whether the operation takes `include` and `fields`."""
    return route.answer == "one" or route.listing or route.body == "query"


def _path_parameters(route: Route) -> list[str]:
    kind = title(route.path.split("/")[1].removesuffix("s"))
    names = [title(part.strip("{}")) for part in route.path.split("/") if part.startswith("{")]
    return [f"Path{kind}Id" if name == "Id" else f"Path{name}" for name in names]


def _filter_parameters(resource: Resource) -> list[Schema]:
    """One parameter for each member that a list can be filtered by, and one for a whole filter."""
    found: list[Schema] = []
    for name, member in resource.filterable.items():
        condition = ref(filter_schema.condition_name(resource, member))
        if member.kind == "custom":
            keys = {"pattern": f"^{CUSTOM_KEY}$"}
            condition = {"type": "object", "propertyNames": keys, "additionalProperties": condition}
        found.append(
            {
                "name": name,
                "in": "query",
                "style": "deepObject",
                "explode": True,
                "schema": condition,
                "description": f"Filter: {member.description}",
            }
        )
    for name, text in filter_schema.aliases(resource):
        found.append({"name": name, "in": "query", "schema": ref("Moment"), "description": text})
    return [*found, filter_parameter(f"{title(resource)}Filter", "All conditions as the text of one JSON document.")]


def filter_parameter(name: str, text: str) -> Schema:
    """The parameter `filter`, which holds a JSON document as text."""
    form = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(name)}
    return {"name": "filter", "in": "query", "schema": form, "description": text}


def shared_parameters(routes: list[Route]) -> Schema:
    """The components: what follows from the declarations of the routes, and what they bring along."""
    found: Schema = {}
    for resource in RESOURCES:
        found[f"Path{title(resource)}Id"] = {
            "name": "id", "in": "path", "required": True, "schema": schema.id_schema(resource.name),
            "description": f"The id of the {resource.noun}.", "example": sample_id(resource.prefix),
        }  # fmt: skip
    for resource in (*RESOURCES, identity.MEMBER):
        found |= _list_parameters(resource)
    for route in routes:
        found |= route.document.parameters
        found |= route.document.in_path
    return dict(sorted((found | _COMMON_PARAMETERS).items()))


def _list_parameters(resource: Resource) -> Schema:
    name, style = title(resource), {"in": "query", "style": "form", "explode": False}
    sort: Schema = {"type": "array", "maxItems": query.MAX_SORT_KEYS, "items": ref(f"{name}SortKey")}
    custom = " or `custom_fields.<key>`" if "custom_fields" in resource.fields else ""
    found = {
        f"{name}Sort": {
            "name": "sort",
            **style,
            "schema": sort,
            "example": ["-created_at"],
            "description": "What to sort by, with `-` in front for descending:"
            f" {', '.join(schema.sort_names(resource))}{custom}. What has no value comes last.",
        },
        f"{name}Fields": {
            "name": "fields",
            **style,
            "example": ["id", "version"],
            "description": "Return only these members; the schema of the response is that of the whole.",
            "schema": {"type": "array", "items": ref(f"{name}FieldName")},
        },
    }
    if resource.relations:
        found[f"{name}Include"] = {
            "name": "include", **style, "example": [resource.relations[0].name],
            "schema": {"type": "array", "items": ref(f"{name}IncludeName"), "maxItems": query.MAX_INCLUDES},
            "description": "Related objects to return as well. A dot goes one level deeper, as in `tasks.assignee`.",
        }  # fmt: skip
    return found


_COMMON_PARAMETERS: Final[Schema] = {
    "Limit": {"name": "limit", "in": "query", "example": 50,
              "schema": {"type": "integer", "minimum": 1, "maximum": query.MAX_LIMIT, "default": query.DEFAULT_LIMIT},
              "description": "How many to return at most."},
    "Cursor": {"name": "cursor", "in": "query", "schema": {"type": "string", "minLength": 1},
               "description": "Where the last page ended. `Link` has the whole address of the next page."},
    "Count": {"name": "count", "in": "query", "schema": {"type": "boolean", "default": False},
              "description": "Whether to count all pages together, in `Total-Count`."},
    "Timezone": {"name": "timezone", "in": "query", "schema": schema.ZONE, "example": "Europe/Berlin",
                 "description": "The IANA time zone of dates and of values such as `today` in filters. Default: that of"
                 " the user, else that of the workspace."},
    "Search": {"name": "q", "in": "query", "schema": {"type": "string"}, "example": "mock",
               "description": "Full-text search: every word must be the beginning of a word in the object."},
    "Deleted": {"name": "deleted", "in": "query", "schema": {"type": "boolean", "default": False},
                "description": "Whether to list what is in the trash instead."},
    "IfMatch": {"name": "If-Match", "in": "header", "schema": {"type": "string"}, "example": '"3"',
                "description": "Write only if this is the current ETag, or one of several; otherwise answer 412."},
    "IfNoneMatch": {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}, "example": '"2"',
                    "description": "Answer 304 without a body if this is the current ETag, or one of several."},
    "AsOf": {"name": "as_of", "in": "query", "schema": {"type": "string", "minLength": 1}, "example": "now",
             "description": "Read the object as it was after the event with this `seq` (a `Commit-Seq` is taken as"
             " well), or at a time, a date, or a moment such as `-2h`. Cannot be combined with `include`."},
    "DryRun": {"name": "dry_run", "in": "query", "schema": {"type": "boolean", "default": False},
               "description": "Whether to answer as the write would, without writing anything."},
    "IdempotencyKey": {"name": "Idempotency-Key", "in": "header", "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
                       "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*[!-~][ -~]*$"},
                       "description": "Makes the write safe to repeat. When it is sent again with the same key within"
                       " 24 hours, it has no second effect and gets the first response."},
    "Prefer": {"name": "Prefer", "in": "header", "example": "return=representation", "schema": {"type": "string"},
               "description": "`return=minimal` asks for a response without a body (RFC 7240): 204 in place of 200."
               " Unknown preferences are ignored."},
    "MinSeq": {"name": "min_seq", "in": "query", "schema": {"type": "string"},
               "description": "The `Commit-Seq` of a write that the response must show. The server waits for it."},
    "UnlessMatch": {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}, "example": '"2"',
                    "description": "Write only if none of these is the current ETag; otherwise answer 412."},
}  # fmt: skip
