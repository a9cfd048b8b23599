"""What the writers of a selftest ask for: creates, updates, deletes, bulk and batch requests on tasks of their own.

Why every request carries a text that no other does: it ends in the event of whatever the request changed, so the log
alone tells which requests happened, how often, and whether wholly.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from taskade_server.engine.log import Event
from taskade_server.kit import ids, json
from taskade_server.selftest.ledger import Mark, Operation

KINDS: Final = {"create": 8, "update": 5, "bulk create": 2, "bulk update": 1, "delete": 2, "batch": 3}
LARGE: Final = 400
LARGE_EVERY: Final = 40


def mark_of(event: Event) -> Mark:
    """The mark an event carries: see `Operation.marks`."""
    if event.type == "task.deleted":
        return event.type, event.object_id
    document = json.decode(event.data)
    return event.type, str(document.get("description" if event.type == "task.updated" else "name"))


class Writer:
    """One client, which sends one request at a time and remembers the tasks it has."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.project_id = ids.new("proj")
        self.random = Random(f"{seed}/{name}")
        self.unsettled: list[Operation] = []
        self._tasks: list[str] = []
        self._count = 0
        self._has_project = False
        self._makers: dict[str, Callable[[str], Operation]] = {
            "create": self._create,
            "update": self._update,
            "bulk create": self._bulk_create,
            "bulk update": self._bulk_update,
            "delete": self._delete,
            "batch": self._batch,
        }

    def next(self) -> Operation:
        """The next request."""
        self._count += 1
        mark = f"{self.name}-{self._count}"
        if not self._has_project:
            self._has_project = True
            return self._operation(
                mark,
                "project",
                "POST",
                "/v1/projects",
                {"id": self.project_id, "name": mark},
                Counter({("project.created", mark): 1}),
            )
        kind = self.random.choices([*KINDS], [*KINDS.values()])[0]
        if len(self._tasks) < 10:
            kind = "create"
        return self._makers[kind](mark)

    def settle(self, operation: Operation, happened: bool) -> None:
        """Remember what came of a request."""
        if operation.kind == "project":
            self._has_project = happened
        elif happened:
            self._tasks = [task for task in (*self._tasks, *operation.created) if task not in operation.deleted]

    def resume(self, operations: list[Operation]) -> None:
        """Go on from a state in which of its requests only those have happened that are `there`.

        Those that were acknowledged are settled; the others will have to be sent again.
        """
        # Whoever tries to delete a task, even in vain, is the only one who does: so its deletion has one author.
        gone = {task for operation in operations for task in operation.deleted}
        happened = [operation for operation in operations if operation.fate == "there"]
        self._tasks = [task for operation in happened for task in operation.created if task not in gone]
        self._has_project = any(operation.kind == "project" for operation in happened)

    def _operation(
        self,
        mark: str,
        kind: str,
        method: str,
        path: str,
        body: Any,
        marks: Counter[Mark],
        created: Sequence[str] = (),
        deleted: Sequence[str] = (),
        touched: Sequence[str] = (),
    ) -> Operation:
        return Operation(mark, kind, method, path, body, f"selftest-{mark}", marks, created, deleted, touched)

    def _new(self, mark: str) -> dict[str, str]:
        return {"id": ids.new("task"), "name": mark, "project_id": self.project_id}

    def _create(self, mark: str) -> Operation:
        task = self._new(mark)
        return self._operation(
            mark, "create", "POST", "/v1/tasks", task, Counter({("task.created", mark): 1}), [task["id"]]
        )

    def _update(self, mark: str) -> Operation:
        task = self.random.choice(self._tasks)
        return self._operation(
            mark,
            "update",
            "PATCH",
            f"/v1/tasks/{task}",
            {"description": mark},
            Counter({("task.updated", mark): 1}),
            touched=[task],
        )

    def _delete(self, mark: str) -> Operation:
        task = self._take()
        return self._operation(
            mark, "delete", "DELETE", f"/v1/tasks/{task}", None, Counter({("task.deleted", task): 1}), (), [task]
        )

    def _take(self) -> str:
        """One of the tasks, which nobody else shall use any more; not one that will be needed to ask again."""
        needed = {task for operation in self.unsettled for task in operation.touched}
        indexes = [index for index, task in enumerate(self._tasks) if task not in needed]
        return self._tasks.pop(self.random.choice(indexes or range(len(self._tasks))))

    def _bulk_create(self, mark: str) -> Operation:
        large = self.random.randrange(LARGE_EVERY) == 0
        count = LARGE if large else self.random.randint(2, 30)
        tasks = [self._new(f"{mark}.{number}") for number in range(count)]
        marks = Counter({("task.created", task["name"]): 1 for task in tasks})
        return self._operation(
            mark, "bulk create", "POST", "/v1/tasks/bulk", {"tasks": tasks}, marks, [task["id"] for task in tasks]
        )

    def _bulk_update(self, mark: str) -> Operation:
        chosen = self.random.sample(self._tasks, min(len(self._tasks), self.random.randint(2, 20)))
        return self._operation(
            mark,
            "bulk update",
            "PATCH",
            "/v1/tasks/bulk",
            {"ids": chosen, "set": {"description": mark}},
            Counter({("task.updated", mark): len(chosen)}),
            touched=chosen,
        )

    def _batch(self, mark: str) -> Operation:
        """Creates, updates and deletes, one after the other."""
        gone, task = self._take(), self._new(mark)
        chosen = self.random.sample(self._tasks, self.random.randint(1, 6))
        operations = [
            {"method": "POST", "path": "/tasks", "body": task},
            *({"method": "PATCH", "path": f"/tasks/{id}", "body": {"description": mark}} for id in chosen),
            {"method": "DELETE", "path": f"/tasks/{gone}"},
        ]
        marks: Counter[Mark] = Counter(
            {("task.created", mark): 1, ("task.updated", mark): len(chosen), ("task.deleted", gone): 1}
        )
        return self._operation(
            mark, "batch", "POST", "/v1/batch", {"operations": operations}, marks, [task["id"]], [gone], [*chosen, gone]
        )
