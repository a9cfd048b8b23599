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
from taskade_server.engine import events, filters
from taskade_server.http import openapi
from taskade_server.http.routes import all_routes
from taskade_server.kit.errors import problem_classes
from taskade_server.store import deliveries

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = json.loads(openapi.render())
COMPONENTS = DOCUMENT["components"]
BASE = "urn:document"
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
    assert committed == openapi.render(), "the document has changed: run `make openapi`"


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
    assert list(DOCUMENT["webhooks"]) == [*events.catalogue(), deliveries.TEST]


def sent(name: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """The operation of a webhook, the schema of its body and the sample."""
    operation = DOCUMENT["webhooks"][name]["post"]
    content = operation["requestBody"]["content"][openapi.JSON]
    return operation, content["schema"], content["example"]


@pytest.mark.parametrize("name", events.catalogue())
def test_webhooks_have_samples_that_satisfy_them(name):
    """Its own schema and the one of any event; and without a member that the schema does not name."""
    operation, schema, sample = sent(name)
    known = resolve(schema["anyOf"][0])
    assert sample["type"] == name
    for each in (schema["anyOf"][0], {"$ref": "#/components/schemas/Event"}):
        assert faults(each, sample) == []
    assert set(sample) == set(known["properties"])
    assert set(sample["data"]) <= set(resolve(known["properties"]["data"])["properties"])
    assert (sample["previous"] is not None) is events.catalogue()[name].has_previous
    headers = {item["name"] for item in map(resolve, operation["parameters"]) if item["required"]}
    assert headers >= {"webhook-id", "webhook-timestamp", "webhook-signature", "x-taskade-signature"}


@pytest.mark.parametrize("name", events.catalogue())
def test_a_thin_event_is_one_too(name):
    _, schema, sample = sent(name)
    thin = {**sample, "data": {"id": sample["data"]["id"]}, "previous": None}
    assert faults(schema, thin) == []
    assert faults(schema["anyOf"][0], thin) != []


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
    """Conditions such as "a person needs an email" name members without declaring them: they have no type."""
    silent = [
        f"{place}/{name}"
        for place, schema in walk(COMPONENTS["schemas"])
        if schema.get("type") == "object"
        for name, member in schema.get("properties", {}).items()
        if not member.get("description")
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
    for content in operation.get("requestBody", {"content": {}})["content"].values():
        assert content["examples"]
        values = [example["value"] for example in content["examples"].values()]
        assert [found for value in values for found in faults(content["schema"], value)] == []


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_answers_have_headers_and_examples_that_satisfy_them(method, path, operation):
    assert {"400", "401", "403", "406", "429", "500", "503"} <= set(operation["responses"])
    for status, response in operation["responses"].items():
        response = resolve(response)
        assert status == "414" or "X-Request-Id" in response["headers"]
        for content in response.get("content", {}).values():
            examples = content.get("examples") or {"only": {"value": content["example"]}}
            for example in examples.values():
                assert faults(content["schema"], example["value"]) == [], status


def test_every_error_has_an_example_with_its_own_words():
    """A class that says nothing of its own would show its title as its detail."""
    shown = {
        code: sample["value"]
        for response in COMPONENTS["responses"].values()
        if "content" in response
        for code, sample in response["content"][openapi.PROBLEM]["examples"].items()
    }
    assert sorted(shown) == sorted(cls.code for cls in problem_classes())
    assert set(openapi._FAULTS) == set(shown)


def test_every_operator_is_documented():
    schemas = [schema for name, schema in COMPONENTS["schemas"].items() if name.endswith("Condition")]
    shown = {name for schema in schemas for name in schema["anyOf"][-1]["properties"]}
    assert shown == set(filters.OPERATORS)
    assert all(name in DOCUMENT["info"]["description"] for name in (*filters.OPERATORS, *filters.GROUPS))


def test_lists_document_every_parameter_the_server_reads():
    lists = {route.operation_id for route in all_routes() if route.listing}
    for _, _, operation in operations():
        if operation["operationId"] in lists:
            named = {resolve(item)["name"] for item in operation["parameters"]}
            assert named >= {"filter", "sort", "limit", "cursor", "fields", "count"}, operation["operationId"]
