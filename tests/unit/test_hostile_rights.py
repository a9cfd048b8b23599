"""The fuzzer's model of rights, asked what the guide of roles answers.

Why: if it allowed everything, the fuzzer would find nothing.
"""

import json

import pytest

from tests.hostile.rights import ALWAYS, Caller, Rights, Row

WORD = "zqu00000000abc"


class Log:
    """Writes rows of one workspace, each ten milliseconds after the one before."""

    def __init__(self):
        self.rights, self.seq = Rights(), 0

    def add(self, kind, object_id, place=None, /, **data):
        self.seq += 1
        resource = kind.partition(".")[0]
        row = Row("ws_1", self.seq, kind, resource, object_id, place, self.seq * 10, json.dumps(data), None)
        self.rights.feed([row])

    def member(self, user, role, project=None, kind="member.added"):
        self.add(kind, f"mem_{user}", project, workspace_id="ws_1", project_id=project, user=user, role=role)

    def may(self, user, key=None, begin=ALWAYS, word=WORD):
        """Whether they may until now. As in a run, what happens afterwards is later than what was asked about."""
        self.seq += 1
        return self.rights.may_read(Caller(user, key), word, begin, self.seq * 10)


@pytest.fixture
def log():
    """A private project with a task that has the word in it, and another project."""
    made = Log()
    made.add("workspace.created", "ws_1", name="x")
    made.add("project.created", "proj_1", "proj_1", name="x", visibility="private")
    made.add("project.created", "proj_2", "proj_2", name="x", visibility="workspace")
    made.add("task.created", "task_1", "proj_1", name=WORD, project_id="proj_1")
    return made


@pytest.mark.parametrize(("role", "may"), [("owner", True), ("admin", True), ("member", False), ("guest", False)])
def test_what_is_private_is_for_those_who_administer_and_for_its_members(log, role, may):
    log.member("ana", role)
    assert log.may("ana") is may
    log.member("ana", "viewer", "proj_1")
    assert log.may("ana")
    assert not log.may("tom") and not log.may(None)


def test_a_text_that_was_moved_is_for_those_of_the_other_place_too(log):
    log.member("ana", "member")
    log.add("task.updated", "task_1", "proj_2", name=WORD, project_id="proj_2")
    assert log.may("ana")


def test_a_text_that_was_changed_before_it_was_moved_is_not(log):
    log.member("ana", "member")
    log.add("task.updated", "task_1", "proj_2", name="clean", project_id="proj_2")
    assert not log.may("ana")


def test_who_has_left_had_the_right_until_then(log):
    log.member("ana", "admin")
    log.member("ana", "admin", kind="member.removed")
    left = log.seq * 10
    assert log.may("ana") and not log.may("ana", begin=left)


def test_who_left_before_a_text_was_written_never_had_the_right(log):
    log.member("ana", "admin")
    log.member("ana", "admin", kind="member.removed")
    log.add("comment.created", "cmt_1", "proj_1", body="zqu00000000def", project_id="proj_1")
    assert not log.may("ana", word="zqu00000000def")


@pytest.mark.parametrize(
    ("limits", "may"),
    [
        ((["*"], [], []), True),
        ((["tasks:write"], [], []), True),
        ((["comments:read", "projects:write"], [], []), False),
        ((["*"], ["ws_1"], ["proj_1"]), True),
        ((["*"], ["ws_2"], []), False),
        ((["*"], [], ["proj_2"]), False),
    ],
)
def test_a_key_may_read_what_its_scopes_and_limits_allow(log, limits, may):
    log.member("ana", "owner")
    scopes, workspaces, projects = limits
    log.add("api_key.created", "key_1", scopes=scopes, workspace_ids=workspaces, project_ids=projects, user_id="ana")
    assert log.may("ana", "key_1") is may
    log.add("api_key.deleted", "key_1", scopes=scopes, workspace_ids=workspaces, project_ids=projects, user_id="ana")
    assert not log.may("ana", "key_1", begin=log.seq * 10)


def test_people_are_seen_by_those_who_share_a_workspace_with_them():
    log = Log()
    log.add("user.created", "ana", name=WORD)
    log.member("ana", "member")
    assert log.may("ana") and not log.may("tom")
    log.member("tom", "guest")
    assert log.may("tom")
    log.member("ana", "member", kind="member.removed")
    assert log.may("tom", begin=log.seq * 10), "the log keeps what was so while she was a member"
    log.add("user.updated", "ana", name="zqu00000000jkl")
    assert not log.may("tom", begin=log.seq * 10, word="zqu00000000jkl")


def test_what_belongs_to_a_user_is_theirs(log):
    log.member("ana", "member")
    log.member("tom", "admin")
    log.add("webhook.created", "wh_1", url="http://127.0.0.1:1/hook/ana", description="zqu00000000ghi", user_id="ana")
    assert [log.may(user, word="zqu00000000ghi") for user in ("ana", "tom", "eva")] == [True, True, False]
    assert log.rights.urls["ana"] == {"ana"}


def test_a_secret_is_seen_by_members_but_not_by_guests_or_limited_keys(log):
    for user, role in (("ana", "member"), ("tom", "guest")):
        log.member(user, role)
    log.add("secret.created", "sec_1", name="crm", description="zqu00000000mno", user_id="eva")
    assert [log.may(user, word="zqu00000000mno") for user in ("ana", "tom", "eva")] == [True, False, False]
    log.add("api_key.created", "key_1", scopes=["*"], workspace_ids=[], project_ids=["proj_1"], user_id="ana")
    assert not log.may("ana", "key_1", word="zqu00000000mno")
