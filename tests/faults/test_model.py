"""A model of tasks in twenty lines of Python, and the server, which must agree with it whatever is done to both.

Why a state machine: faults that need three requests in a certain order, and a restart in between, are those that nobody
writes a test for. hypothesis finds the order, and then the shortest one that still fails.
"""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from taskade_server.kit import ids

from tests.support.server import Server
from tests.unit.examples import THOROUGHNESS

STATUSES = st.sampled_from(["pending", "in_progress", "completed"])
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=20)
PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES,
        "status": STATUSES,
        "priority": st.sampled_from(["none", "high", "urgent"]),
        "labels": st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3).map(sorted),
        "estimate": st.none() | st.integers(0, 99),
        "custom_fields": st.dictionaries(st.sampled_from("xyz"), st.none() | st.integers(0, 9), max_size=3),
    },
)
FRESH: dict[str, Any] = {"status": "pending", "priority": "none", "labels": [], "estimate": None, "custom_fields": {}}


def merged(task, patch):
    """RFC 7396, for members that are objects too."""
    after = {**task, **patch}
    fields = {**task["custom_fields"], **patch.get("custom_fields", {})}
    return {**after, "custom_fields": {key: value for key, value in fields.items() if value is not None}}


class Tasks(RuleBasedStateMachine):
    """`server` is set by the test. Live and deleted tasks by id, and how often each was changed."""

    server: Server
    tasks = Bundle("tasks")
    trash = Bundle("trash")

    @initialize()
    def begin(self):
        self.client = self.server.client()
        self.project = self.client.post("/v1/projects", json={"name": "A model"}).json()["id"]
        self.live, self.deleted, self.versions = {}, {}, {}
        self.restarts = 0

    def teardown(self):
        if hasattr(self, "client"):
            self.client.close()

    def agree(self, task_id, answer):
        """The server's document says what the model says."""
        document = answer.json()
        expected = self.live[task_id]
        assert {name: document[name] for name in expected} == expected
        assert document["version"] == self.versions[task_id]
        assert (document["completed_at"] is None) == (expected["status"] != "completed")
        assert answer.headers["etag"] == f'"{self.versions[task_id]}"'

    def changed(self, task_id, after):
        self.versions[task_id] += after != self.live[task_id]
        self.live[task_id] = after

    @rule(target=tasks, name=NAMES, patch=PATCHES)
    def create(self, name, patch):
        task_id = ids.new("task")
        body = {"id": task_id, "project_id": self.project, **patch, "name": name}
        answer = self.client.post("/v1/tasks", json=body)
        assert answer.status_code == 201, answer.text
        self.live[task_id] = merged(FRESH | {"name": name}, {**patch, "name": name})
        self.versions[task_id] = 1
        self.agree(task_id, answer)
        return task_id

    @rule(task_id=tasks, patch=PATCHES, method=st.sampled_from(["PUT", "PATCH"]))
    def change(self, task_id, patch, method):
        answer = self.client.request(method, f"/v1/tasks/{task_id}", json=patch)
        if task_id not in self.live:
            assert answer.status_code == 404
            return
        assert answer.status_code == 200, answer.text
        self.changed(task_id, merged(self.live[task_id], patch))
        self.agree(task_id, answer)

    @rule(task_id=tasks, patch=PATCHES, behind=st.integers(0, 2))
    def change_if_unchanged(self, task_id, patch, behind):
        if task_id in self.live:
            version = self.versions[task_id] - behind
            answer = self.client.patch(f"/v1/tasks/{task_id}", json=patch, headers={"If-Match": f'"{version}"'})
            assert answer.status_code == (412 if behind else 200), answer.text
            if not behind:
                self.changed(task_id, merged(self.live[task_id], patch))

    @rule(target=trash, task_id=consumes(tasks))
    def delete(self, task_id):
        answer = self.client.delete(f"/v1/tasks/{task_id}")
        assert answer.status_code == (204 if task_id in self.live else 404)
        if task_id in self.live:
            self.deleted[task_id] = self.live.pop(task_id)
            self.versions[task_id] += 1
        return task_id

    @rule(target=tasks, task_id=consumes(trash))
    def restore(self, task_id):
        answer = self.client.post(f"/v1/tasks/{task_id}/restore")
        assert answer.status_code == 200, answer.text
        if task_id in self.deleted:
            self.live[task_id] = self.deleted.pop(task_id)
            self.versions[task_id] += 1
        self.agree(task_id, answer)
        return task_id

    @rule(chosen=st.lists(tasks, min_size=1, max_size=4, unique=True), patch=PATCHES, fails=st.booleans())
    def batch(self, chosen, patch, fails):
        operations = [{"method": "PATCH", "path": f"/tasks/{one}", "body": patch} for one in chosen]
        if fails:
            operations.append({"method": "DELETE", "path": f"/tasks/{ids.new('task')}"})
        answer = self.client.post("/v1/batch", json={"operations": operations})
        kept = not fails and all(one in self.live for one in chosen)
        assert answer.status_code == (200 if kept else 404), answer.text
        for one in chosen if kept else ():
            self.changed(one, merged(self.live[one], patch))

    @rule(task_id=tasks)
    def read(self, task_id):
        answer = self.client.get(f"/v1/tasks/{task_id}")
        assert answer.status_code == (200 if task_id in self.live else 404)
        if task_id in self.live:
            self.agree(task_id, answer)

    @rule(status=STATUSES, label=st.sampled_from(["a", "b"]))
    def look_for(self, status, label):
        params = {"project_id": self.project, "status": status, "labels": label}
        found = {task["id"] for task in self.client.get("/v1/tasks", params=params).json()}
        assert found == {key for key, task in self.live.items() if task["status"] == status and label in task["labels"]}

    @precondition(lambda self: self.restarts < 1 and len(self.versions) > 3)
    @rule(killed=st.booleans())
    def restart(self, killed):
        self.restarts += 1
        if killed:
            self.server.kill()
            self.server.start()
        else:
            self.server.restart()

    @invariant()
    def the_list_is_the_model(self):
        if hasattr(self, "live"):
            found = self.client.get("/v1/tasks", params={"project_id": self.project, "limit": 1000}).json()
            assert [task["id"] for task in found] == sorted(self.live)
            trash = self.client.get("/v1/tasks", params={"project_id": self.project, "deleted": "true"}).json()
            assert {task["id"] for task in trash} == set(self.deleted)


def test_the_server_agrees_with_a_model(start_server):
    class OnThisServer(Tasks):
        server = start_server()

    run_state_machine_as_test(
        OnThisServer,
        settings=settings(
            max_examples=6 * THOROUGHNESS,
            stateful_step_count=25,
            deadline=None,
            derandomize=THOROUGHNESS == 1,
            suppress_health_check=list(HealthCheck),
        ),
    )
