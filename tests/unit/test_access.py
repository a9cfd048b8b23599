"""Grants and principals are values: a right that one request gives must not reach the next one through a cache."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from taskade_server.engine.access import Grant, Principal
from taskade_server.engine.edit import Context
from taskade_server.engine.log import Actor

HERE, PROJECT, USER = "ws_here", "proj_one", "user_one"


def a_principal() -> Principal:
    return Principal(USER, None, frozenset("*"), {HERE: Grant(HERE, "member")}, HERE)


def test_a_grant_cannot_be_changed():
    grant: Any = Grant(HERE, "member", project_roles={PROJECT: "viewer"})
    with pytest.raises(TypeError):
        grant.project_roles[PROJECT] = "editor"
    with pytest.raises(FrozenInstanceError):
        grant.role = "owner"


def test_a_grant_does_not_follow_the_dictionary_that_it_was_made_of():
    roles = {PROJECT: "viewer"}
    grant = Grant(HERE, "member", project_roles=roles)
    roles[PROJECT] = "editor"
    assert grant.project_role(PROJECT) == "viewer"


def test_the_grants_of_a_principal_cannot_be_changed():
    principal: Any = a_principal()
    with pytest.raises(TypeError):
        principal.grants["ws_there"] = Grant("ws_there", "owner")


def test_a_right_that_a_unit_gives_stays_in_the_context_of_that_unit():
    principal = a_principal()
    context = Context(principal, Actor(USER), b"")
    context.grant(principal.grants[HERE].with_project(PROJECT, "viewer"))
    context.grant(Grant("ws_there", "owner"))
    assert context.principal.grants[HERE].project_role(PROJECT) == "viewer"
    assert set(context.principal.grants) == {HERE, "ws_there"}
    assert principal == a_principal()
    assert principal.fingerprint() != context.principal.fingerprint()
