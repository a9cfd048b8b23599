"""Calls the server through the client that openapi-python-client makes from the document."""

import json
import os

from generated import AuthenticatedClient
from generated.api.projects import projects_create
from generated.api.tasks import tasks_create, tasks_get, tasks_list, tasks_query_post, tasks_update
from generated.models import (
    DateOperators,
    Problem,
    Project,
    ProjectCreate,
    ProjectType,
    Task,
    TaskCreate,
    TaskFilter,
    TaskPriority,
    TaskQuery,
    TaskUpdate,
)

client = AuthenticatedClient(base_url=f"{os.environ['TASKADE_URL']}/v1", token=os.environ["TASKADE_API_KEY"])

project = projects_create.sync(client=client, body=ProjectCreate(name="Launch", type_=ProjectType.BOARD))
assert isinstance(project, Project)
body = TaskCreate(name="Announce it", project_id=project.id, priority=TaskPriority.HIGH, labels=["web"])
task = tasks_create.sync(client=client, body=body, idempotency_key=f"python-{project.id}")
assert isinstance(task, Task)

listed = tasks_list.sync(client=client, limit=10, q="announce")
assert isinstance(listed, list)
condition = TaskFilter(project_id=project.id, created_at=DateOperators(gte="today"))
found = tasks_query_post.sync(client=client, body=TaskQuery(filter_=condition, limit=5))
assert isinstance(found, list)
changed = tasks_update.sync(task.id, client=client, body=TaskUpdate(status="completed"))
assert isinstance(changed, Task)
missing = tasks_get.sync("task_01j9zq3v5kfg8wt2m4n6p8r0s2", client=client)
assert isinstance(missing, Problem)

print(
    json.dumps(
        {
            "names": [one.name for one in found],
            "listed": task.id in [one.id for one in listed],
            "labels": task.labels,
            "priority": task.priority,
            "completed": changed.completed_at is not None,
            "code": missing.code,
        }
    )
)
