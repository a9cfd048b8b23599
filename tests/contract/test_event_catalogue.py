"""The event catalogue: every type is caused on a real server, says what its schema says, and stands in the docs."""

import jsonschema_rs
import pytest
from taskade_server.engine import event_schema, events
from taskade_server.tools.triggers import IMPOSSIBLE, TRIGGERS

from tests.support import catalogue, conformity
from tests.support.server import Server


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory):
    server = Server(tmp_path_factory.mktemp("catalogue") / "data").start()
    try:
        yield catalogue.record(server)
    finally:
        server.stop()


def test_every_type_can_be_triggered_or_there_is_a_reason():
    assert sorted([*TRIGGERS, *IMPOSSIBLE]) == sorted(events.catalogue())
    assert all(reason.endswith(".") for reason in IMPOSSIBLE.values())


@pytest.mark.parametrize("name", events.catalogue())
def test_what_happens_is_what_the_schema_says(recorded, name):
    """With no member that is not documented, neither in the event nor in what it is about."""
    registry = jsonschema_rs.Registry([(conformity.BASE, conformity.document())])
    schema = {
        "$ref": f"{conformity.BASE}#/components/schemas/{event_schema.name_of(events.catalogue()[name].resource)}"
    }
    validator = jsonschema_rs.Draft202012Validator(schema, registry=registry, validate_formats=True)
    assert [error.message for error in validator.iter_errors(recorded[name])] == []
    assert recorded[name]["type"] == name


def test_the_samples_have_the_form_of_what_happens(recorded):
    for name, kind in events.catalogue().items():
        sample, real = event_schema.sample(kind), recorded[name]
        assert list(sample) == list(real)
        assert list(sample["data"]) == list(real["data"]), name
        assert (sample["previous"] is None) == (real["previous"] is None), name


def test_the_page_is_current(recorded):
    assert catalogue.page(recorded) == catalogue.PAGE.read_text("utf-8"), "run `make openapi`"
