"""The OpenAPI document: current, complete, valid, and true to the routes.

Why so many questions: SDKs, the command line and the explorer are made from it, so what is missing here is missing
everywhere.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR
from taskade_server.engine import event_schema, events, filters
from taskade_server.http.documents import headers as documents_headers
from taskade_server.http.documents import openapi, problems, webhooks
from taskade_server.http.routes import all_routes
from taskade_server.kit.errors import problem_classes
from taskade_server.store.tables import deliveries

from tests.support import described

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED: dict[str, Any] = json.loads(openapi.render())
DOCUMENT: dict[str, Any] = described.with_queries(PUBLISHED)
COMPONENTS = DOCUMENT["components"]
BASE = "urn:document"
BYTES_AN_OPERATION = 4500
NAMED = r"/schemas/\w+(SortKey|FieldName|IncludeName)$"
REGISTRY = jsonschema_rs.Registry([(BASE, DOCUMENT)])


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield ("QUERY" if method == "x-query" else method.upper()), path, operation


OPERATIONS = [pytest.param(*found, id=found[2]["operationId"]) for found in operations()]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    found: Any = node
    while "$ref" in found:
        reference, found = found["$ref"], DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    assert isinstance(found, dict)
    return found


def walk(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document with its place; examples are data, not document."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from walk(item, f"{place}/{index}")
    elif isinstance(node, dict):
        yield place, node
        for name, item in node.items():
            if name not in ("example", "examples", "default", "enum") or place.endswith("/properties"):
                yield from walk(item, f"{place}/{name}")


def validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    text = json.dumps(schema).replace('"$ref": "#/', f'"$ref": "{BASE}#/')
    return jsonschema_rs.Draft202012Validator(json.loads(text), registry=REGISTRY, validate_formats=True)


def faults(schema: dict[str, Any], value: Any) -> list[str]:
    return [f"{error.instance_path}: {error.message}" for error in validator(schema).iter_errors(value)]


def test_the_committed_document_is_current():
    committed = (ROOT / "openapi.json").read_text(encoding="utf-8")
    assert committed == openapi.render(pretty=True), "the document has changed: run `make openapi`"


def test_the_document_is_small_enough_for_people_and_models_to_read():
    """Bytes of an operation, as the server sends the document: it had 7,700 when every response said everything."""
    operations = sum(len(set(item) - {"x-query"}) for item in PUBLISHED["paths"].values())
    size = len(openapi.render().encode())
    print(f"openapi.json: {size:,} bytes, {operations} operations, {size / operations:,.0f} bytes an operation")
    assert size / operations < BYTES_AN_OPERATION
    assert size < 0.6 * len(openapi.render(pretty=True).encode())


def test_unions_have_a_name_and_objects_say_what_they_hold():
    """Generated clients name their types after schemas: a union without a name is `Type1`, an empty object `{}`."""
    unnamed, untyped = [], []
    for place, schema in walk(DOCUMENT):
        choices = [choice for choice in schema.get("anyOf", schema.get("oneOf", [])) if choice != {"type": "null"}]
        if len(choices) > 1 and not re.fullmatch(r"/components/schemas/\w+", place):
            unnamed.append(place)
        if "object" in schema.get("type", ()) and not {"properties", "additionalProperties"} & set(schema):
            untyped.append(place)
    assert unnamed == []
    assert untyped == []


def test_components_of_different_kinds_have_different_names():
    """Generated clients have one space of names for them, and would number what comes second."""
    names = [name for kind in ("schemas", "parameters") for name in COMPONENTS[kind]]
    assert sorted(set(names)) == sorted(names)


def test_enumerations_have_a_name_where_they_have_more_than_one_place():
    """Otherwise a generated client has a type for each place. What may be named of a resource is its own."""
    places: dict[str, list[str]] = {}
    for place, schema in walk(DOCUMENT):
        if isinstance(schema.get("enum"), list):
            places.setdefault(json.dumps(schema["enum"]), []).append(place)
    repeated = [found for found in places.values() if len(found) > 1]
    assert [found for found in repeated if not all(re.search(NAMED, place) for place in found)] == []


def test_what_confuses_generators_is_not_there():
    """A default on a member that is sent makes it required, readOnly hides it from webhooks, const is no type."""
    schemas = PUBLISHED["components"]["schemas"]
    sent = {name: schema for name, schema in schemas.items() if re.search(r"(Create|Update|Input|Query)$", name)}
    assert len(sent) > 20
    assert [place for place, schema in walk(sent) if "default" in schema] == []
    assert [place for place, schema in walk(PUBLISHED) if "readOnly" in schema or "writeOnly" in schema] == []
    assert [place for place, schema in walk(schemas) if schema.get("const") is True] == []
    assert [
        place
        for place, node in everything(PUBLISHED)
        if isinstance(node.get("$ref"), str) and not re.fullmatch(r"#/components/\w+/[\w.-]+", node["$ref"])
    ] == []
    assert schemas["BatchOperation"]["properties"]["method"]["enum"] == [
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "QUERY",
    ]
    assert [entry for entry in COMPONENTS["parameters"].values() if "content" in entry] == []


def everything(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the document with its place, in examples too: some tools resolve references wherever they are."""
    if isinstance(node, dict):
        yield place, node
    for name, item in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from everything(item, f"{place}/{name}")


def test_an_answer_is_the_object_itself():
    """And not a choice between it and what `fields` may leave of it, which types could not tell apart."""
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            for media, content in resolve(response).get("content", {}).items():
                schema = content["schema"]
                named = schema.get("items", schema)
                assert "$ref" in named or not media.endswith("json"), (operation["operationId"], status)


def test_the_document_is_the_same_at_every_rendering():
    assert json.dumps(openapi.document()) == json.dumps(openapi.document())


def test_the_document_is_valid_openapi():
    assert [f"{error.instance_path}: {error.message}" for error in OPENAPI_31_VALIDATOR.iter_errors(DOCUMENT)] == []


@pytest.mark.parametrize("name", COMPONENTS["schemas"])
def test_schemas_are_valid_and_so_are_their_examples(name):
    schema = COMPONENTS["schemas"][name]
    jsonschema_rs.meta.validate(schema)
    assert [found for example in schema.get("examples", []) for found in faults(schema, example)] == []


def test_examples_of_members_satisfy_them():
    wrong = [
        f"{place}: {found}"
        for place, schema in walk(COMPONENTS["schemas"], "/schemas")
        if "/properties/" in place and isinstance(schema.get("examples"), list)
        for example in schema["examples"]
        for found in faults(schema, example)
    ]
    assert wrong == []


def test_routes_and_document_name_the_same_operations():
    routes = {(route.method, route.path, route.operation_id) for route in all_routes()}
    assert {(method, path, operation["operationId"]) for method, path, operation in operations()} == routes


def test_every_type_of_event_is_a_webhook():
    assert list(DOCUMENT["webhooks"]) == [*events.catalogue(), webhooks.THIN, deliveries.TEST]


def sent(name: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """The operation of a webhook, the schema of its body and a sample of an event of that type."""
    operation = DOCUMENT["webhooks"][name]["post"]
    schema = operation["requestBody"]["content"][documents_headers.JSON]["schema"]
    if name == deliveries.TEST:
        return operation, schema, event_schema.test_sample(name)
    return operation, schema, event_schema.sample(events.catalogue()[name], webhook=True)


@pytest.mark.parametrize("name", events.catalogue())
def test_webhooks_have_samples_that_satisfy_them(name):
    """Its own schema and the one of any event; and without a member that the schema does not name."""
    operation, schema, sample = sent(name)
    known = described.merged(DOCUMENT, resolve(schema))
    assert sample["type"] == name
    for each in (schema, {"$ref": "#/components/schemas/Event"}):
        assert faults(each, sample) == []
    assert set(sample) == set(known["properties"])
    assert set(sample["data"]) <= set(resolve(known["properties"]["data"])["properties"])
    assert (sample["previous"] is not None) is events.catalogue()[name].has_previous
    headers = {item["name"] for item in map(resolve, operation["parameters"]) if item["required"]}
    assert headers >= {"webhook-id", "webhook-timestamp", "webhook-signature", "x-taskade-signature"}


@pytest.mark.parametrize("name", events.catalogue())
def test_a_thin_event_is_one_too(name):
    _, schema, sample = sent(name)
    body = DOCUMENT["webhooks"][webhooks.THIN]["post"]["requestBody"]["content"][documents_headers.JSON]
    thin = {**sample, "data": {"id": sample["data"]["id"]}, "previous": None}
    assert faults(body["schema"], thin) == []
    assert faults(schema, thin) != []


def test_a_test_of_a_webhook():
    _, schema, sample = sent(deliveries.TEST)
    assert sample["type"] == deliveries.TEST
    assert faults(schema, sample) == []


@pytest.mark.parametrize("name", events.catalogue())
def test_a_webhook_of_another_type_or_with_less_is_not_one(name):
    _, schema, sample = sent(name)
    for wrong in ({"type": "task.eaten"}, {"seq": 0}, {"previous": {"nobody": 1}}, {"actor": {"type": "user"}}):
        assert faults(schema, {**sample, **wrong}), wrong


def test_operation_ids_are_unique():
    names = [operation["operationId"] for _, _, operation in operations()]
    assert sorted(set(names)) == sorted(names)


def test_every_reference_leads_somewhere():
    for _, node in walk(DOCUMENT):
        if isinstance(node.get("$ref"), str):
            resolve(node)


def test_every_member_is_described():
    """By its place, or by the schema that it refers to."""
    silent = [
        f"{place}/{name}"
        for place, schema in walk(COMPONENTS["schemas"])
        if schema.get("type") == "object"
        for name, member in schema.get("properties", {}).items()
        if not member.get("description") and not ("$ref" in member and resolve(member)["description"])
    ]
    assert silent == []


def test_every_parameter_header_and_tag_is_described():
    found = [*COMPONENTS["parameters"].items(), *COMPONENTS["headers"].items()]
    found += [(tag["name"], tag) for tag in DOCUMENT["tags"]]
    found += [(item.get("name"), item) for _, _, operation in operations() for item in operation["parameters"]]
    assert [name for name, node in found if not resolve(node)["description"]] == []


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_operations_say_what_they_do_and_need(method, path, operation):
    assert operation["summary"]
    assert operation["description"].endswith(".")
    assert operation["x-required-scope"] is None or operation["x-required-scope"] in operation["description"]
    assert isinstance(operation["x-batchable"], bool)
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
    named = {item["name"] for item in map(resolve, operation["parameters"]) if item["in"] == "path"}
    assert named == set(re.findall(r"\{(\w+)\}", path))


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_bodies_have_examples_that_satisfy_them(method, path, operation):
    """For JSON. Merge patches are the same, and the schema of JSON Patch has an example of its own."""
    for media, content in operation.get("requestBody", {"content": {}})["content"].items():
        assert content.get("examples") or media != documents_headers.JSON
        values = [example["value"] for example in content.get("examples", {}).values()]
        assert [found for value in values for found in faults(content["schema"], value)] == []


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_answers_have_descriptions_and_examples_that_satisfy_them(method, path, operation):
    """Objects have an example with their schema; errors and what is not JSON, with the response."""
    assert {"400", "403", "default"} <= set(operation["responses"])
    for status, response in operation["responses"].items():
        response = resolve(response)
        assert response["description"].endswith("."), status
        for media, content in response.get("content", {}).items():
            examples = content.get("examples") or (
                {"only": {"value": content["example"]}} if "example" in content else {}
            )
            assert examples or media == documents_headers.JSON
            for example in examples.values():
                assert faults(content["schema"], example["value"]) == [], status


def test_every_object_that_an_operation_answers_with_has_an_example():
    named = {
        schema.get("items", schema)["$ref"].rpartition("/")[2]
        for _, _, operation in operations()
        for status, response in operation["responses"].items()
        for media, content in resolve(response).get("content", {}).items()
        for schema in [content["schema"]]
        if status.startswith("2") and media == documents_headers.JSON
    }
    assert len(named) > 20
    # An event and its type are shown by the catalogue of events, which the server itself writes.
    assert {name for name in named if "examples" not in COMPONENTS["schemas"][name]} == {"Event", "EventType"}


def test_headers_of_every_response_are_said_once():
    """In the introduction and with the errors."""
    for name in documents_headers.EVERYWHERE:
        assert f"`{name}`" in DOCUMENT["info"]["description"]
        assert name in COMPONENTS["responses"]["Problem"]["headers"]
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            assert status >= "4" or not set(documents_headers.EVERYWHERE) & set(resolve(response).get("headers", {}))


def test_every_error_has_an_example_with_its_own_words():
    """A class that says nothing of its own would show its title as its detail."""
    shown = {
        code: sample["value"]
        for response in COMPONENTS["responses"].values()
        if documents_headers.PROBLEM in response.get("content", {})
        for code, sample in response["content"][documents_headers.PROBLEM]["examples"].items()
    }
    assert sorted(shown) == sorted(cls.code for cls in problem_classes())
    assert set(problems._FAULTS) == set(shown)


def test_every_operator_is_documented():
    schemas = [schema for name, schema in COMPONENTS["schemas"].items() if name.endswith("Operators")]
    shown = {name for schema in schemas for name in schema["properties"]}
    assert shown == set(filters.OPERATORS)
    assert all(name in DOCUMENT["info"]["description"] for name in (*filters.OPERATORS, *filters.GROUPS))


def test_lists_document_every_parameter_the_server_reads():
    lists = {route.operation_id for route in all_routes() if route.listing}
    for _, _, operation in operations():
        if operation["operationId"] in lists:
            named = {resolve(item)["name"] for item in operation["parameters"]}
            assert named >= {"filter", "sort", "limit", "cursor", "fields", "count"}, operation["operationId"]
