"""The order of tasks among their siblings: every key is there once, and a move ends where it was told to.

Why a plain list beside the server: what the order ought to be is easy to say with a list, and a thousand random
histories find what nobody thinks of.
"""

import random
from collections import Counter

import pytest

from tests.api.asking import codes, create, listed, names, places, problem


def act(client, task, verb, **body):
    response = client.post(f"/v1/tasks/{task['id']}/{verb}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def change(client, task, **body):
    response = client.patch(f"/v1/tasks/{task['id']}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def bulk(client, project, entries):
    return create(client, "tasks/bulk", project_id=project["id"], tasks=entries)


def order(client, project):
    return names(client, "tasks", project_id=project["id"], sort="position", parent_id="null", limit=1000)


def assert_unique(client, project):
    tasks = listed(client, "tasks", project_id=project["id"], limit=1000)
    twice = [
        key for key, count in Counter((task["parent_id"], task["position"]) for task in tasks).items() if count > 1
    ]
    assert twice == []
    assert max(len(task["position"]) for task in tasks) <= 60


@pytest.fixture
def top(api):
    """Two projects in each of which the last task was moved to the top, by project and name."""
    found = {}
    for project, members in (("A", ["a1", "a2", "a3"]), ("B", ["b1", "b2"])):
        found[project] = create(api, "projects", name=project)
        made = bulk(api, found[project], [{"name": name} for name in members])
        found |= {task["name"]: task for task in made}
        act(api, made[-1], "move", before=made[0]["id"])
    return found


@pytest.mark.parametrize("how", ["PATCH", "move", "bulk", "copy"])
def test_a_task_that_comes_with_a_key_that_is_taken_stands_behind_its_twin(api, top, how):
    taken = api.get(f"/v1/tasks/{top['a3']['id']}").json()
    assert api.get(f"/v1/tasks/{top['b2']['id']}").json()["position"] == taken["position"]
    if how == "PATCH":
        change(api, top["b2"], project_id=top["A"]["id"])
    elif how == "move":
        act(api, top["b2"], "move", project_id=top["A"]["id"])
    elif how == "bulk":
        api.patch("/v1/tasks/bulk", json={"ids": [top["b2"]["id"]], "set": {"project_id": top["A"]["id"]}})
    else:
        create(api, "tasks", name="b2", project_id=top["A"]["id"], position=taken["position"])
    assert order(api, top["A"]) == ["a3", "b2", "a1", "a2"]
    assert_unique(api, top["A"])
    act(api, top["a2"], "move", after=top["a3"]["id"])
    assert order(api, top["A"]) == ["a3", "a2", "b2", "a1"]
    assert_unique(api, top["A"])


def test_a_task_that_comes_back_to_a_key_that_was_given_away_gets_another(api, a_project):
    tasks = {task["name"]: task for task in bulk(api, a_project, [{"name": name} for name in "abcd"])}
    act(api, tasks["d"], "move", before=tasks["b"]["id"])
    api.delete(f"/v1/tasks/{tasks['d']['id']}")
    act(api, tasks["c"], "move", before=tasks["b"]["id"])
    act(api, tasks["d"], "restore")
    assert order(api, a_project) == ["a", "c", "d", "b"]
    assert_unique(api, a_project)


def test_many_that_ask_for_one_position_stand_behind_one_another(api, a_project):
    bulk(api, a_project, [{"name": str(number), "position": "b"} for number in range(300)])
    assert order(api, a_project)[:1] == ["0"]
    assert_unique(api, a_project)
    again = bulk(api, a_project, [{"name": str(number)} for number in range(300)])
    ids = [task["id"] for task in again]
    moved = api.patch("/v1/tasks/bulk", json={"ids": ids, "set": {"position": "b"}})
    assert moved.status_code == 200, moved.text
    assert_unique(api, a_project)


def test_the_key_of_a_new_task_belongs_to_it(api, a_project):
    """Another that is written with it stands behind it, so that new tasks need no look at the others."""
    first = create(api, "tasks", name="first", project_id=a_project["id"])
    elsewhere = create(api, "projects", name="Elsewhere")
    copy = create(api, "tasks", name="copy", project_id=elsewhere["id"], position=first["position"])
    assert copy["position"] > first["position"]
    assert change(api, first, project_id=elsewhere["id"])["position"] == first["position"]
    assert order(api, elsewhere) == ["first", "copy"]


def test_positions_stay_short_and_can_be_sent_back_however_often_tasks_are_moved(api, a_project):
    header, *two = bulk(api, a_project, [{"name": name} for name in ("header", "c", "d")])
    operations = [
        {"method": "POST", "path": f"/tasks/{two[number % 2]['id']}/move", "body": {"after": header["id"]}}
        for number in range(1000)
    ]
    moved = api.post("/v1/batch", json={"operations": operations})
    assert moved.status_code == 200, moved.text[:500]
    assert order(api, a_project) == ["header", "d", "c"]
    assert_unique(api, a_project)
    for task in two:
        now = api.get(f"/v1/tasks/{task['id']}").json()
        assert len(now["position"]) <= 60
        assert api.put(f"/v1/tasks/{task['id']}", json=now).json() == now


def test_neighbours_that_get_new_positions_tell_of_it(api, a_project, expect_events):
    """Where clients have written positions without room between them, some of the neighbours move."""
    low, high = "b" * 199 + "b", "b" * 199 + "c"
    entries = [{"name": "a", "position": low}, {"name": "b", "position": high}, {"name": "c"}]
    first, _, third = bulk(api, a_project, entries)
    with expect_events("task.updated", "task.moved", "task.updated", "task.moved") as seen:
        act(api, third, "move", after=first["id"])
    assert [event.object_id for event in seen] == [task["id"] for task in (third, third, first, first)]
    assert order(api, a_project) == ["a", "c", "b"]


def test_the_place_and_the_task_to_move_to_have_to_agree(api, top):
    body = {"project_id": top["B"]["id"], "after": top["a1"]["id"]}
    refused = problem(api.post(f"/v1/tasks/{top['a2']['id']}/move", json=body), 422)
    assert (places(refused), codes(refused)) == (["/project_id"], ["mismatch"])
    body["project_id"] = top["A"]["id"]
    assert api.post(f"/v1/tasks/{top['a2']['id']}/move", json=body).status_code == 200


@pytest.mark.parametrize("seed", range(3))
def test_tasks_that_are_copied_with_their_positions_keep_their_order(api, a_project, seed):
    made = bulk(api, a_project, [{"name": str(number)} for number in range(8)])
    act(api, made[7], "move", before=made[0]["id"])
    act(api, made[6], "move", after=made[2]["id"])
    tasks = listed(api, "tasks", project_id=a_project["id"])
    random.Random(seed).shuffle(tasks)
    elsewhere = create(api, "projects", name="Elsewhere")
    for task in tasks:
        create(api, "tasks", name=task["name"], position=task["position"], project_id=elsewhere["id"])
    assert order(api, elsewhere) == order(api, a_project)
    create(api, "tasks", name="new", project_id=elsewhere["id"])
    assert order(api, elsewhere)[-1] == "new"


class Model:
    """Two projects, each with a list of top-level tasks in order, and one parent in each with a list below it."""

    def __init__(self, api, seed):
        self.api, self.random = api, random.Random(seed)
        self.projects = [create(api, "projects", name=f"Model {number}") for number in range(2)]
        self.parents = [create(api, "tasks", name="parent", project_id=one["id"]) for one in self.projects]
        self.lists = {("top", number): [self.parents[number]["id"]] for number in range(2)}
        self.lists |= {("below", number): [] for number in range(2)}
        self.trash: list[str] = []
        self.last: dict[tuple[str, int], list[str]] = {}

    def place_of(self, task_id):
        return next(place for place, tasks in self.lists.items() if task_id in tasks)

    def where(self, place):
        kind, number = place
        parent = self.parents[number]["id"] if kind == "below" else None
        return {"project_id": self.projects[number]["id"], "parent_id": parent}

    def some(self):
        found = [
            name for tasks in self.lists.values() for name in tasks if name not in {one["id"] for one in self.parents}
        ]
        return self.random.choice(found) if found else None

    def stored(self, place):
        wanted = self.where(place)
        tasks = listed(
            self.api,
            "tasks",
            project_id=wanted["project_id"],
            parent_id=wanted["parent_id"] or "null",
            sort="position",
            limit=1000,
        )
        assert len({task["position"] for task in tasks}) == len(tasks)
        assert all(len(task["position"]) <= 60 for task in tasks)
        return [task["id"] for task in tasks]

    def step(self):
        kind = self.random.choice(
            ["create", "create", "move", "move", "move", "position", "enter", "delete", "restore"]
        )
        place = self.random.choice(list(self.lists))
        task = self.some()
        if kind == "create" or task is None:
            made = create(self.api, "tasks", name="x", **self.where(place))["id"]
            self.settle(made, place)
        elif kind == "move":
            anchor, before = self.random.choice(self.lists[place] or [task]), self.random.random() < 0.5
            if anchor != task:
                assert (
                    self.api.post(f"/v1/tasks/{task}/move", json={"before" if before else "after": anchor}).status_code
                    == 200
                )
                self.lists[self.place_of(task)].remove(task)
                index = self.lists[place].index(anchor)
                self.lists[place].insert(index if before else index + 1, task)
        elif kind == "position":
            twin = self.api.get(f"/v1/tasks/{self.random.choice(self.lists[place] or [task])}").json()
            if twin["id"] != task:
                body = {**self.where(place), "position": twin["position"]}
                assert self.api.patch(f"/v1/tasks/{task}", json=body).status_code == 200
                self.lists[self.place_of(task)].remove(task)
                self.lists[place].insert(self.lists[place].index(twin["id"]) + 1, task)
        elif kind == "enter":
            assert self.api.patch(f"/v1/tasks/{task}", json=self.where(place)).status_code == 200
            self.lists[self.place_of(task)].remove(task)
            self.settle(task, place)
        elif kind == "delete":
            assert self.api.delete(f"/v1/tasks/{task}").status_code == 204
            self.lists[self.place_of(task)].remove(task)
            self.trash.append(task)
        elif self.trash:
            back = self.api.post(f"/v1/tasks/{self.trash.pop()}/restore").json()
            number = [one["id"] for one in self.projects].index(back["project_id"])
            self.settle(back["id"], ("below" if back["parent_id"] else "top", number))
        for one, tasks in self.lists.items():
            assert self.stored(one) == tasks, f"after {kind} into {place}"

    def settle(self, task, place):
        """It came in with a key of its own: where does it stand? The others stay in their order."""
        now = self.stored(place)
        assert [name for name in now if name != task] == self.lists[place]
        self.lists[place] = now


@pytest.mark.parametrize("seed", range(3))
def test_random_histories_agree_with_a_plain_list(api, seed):
    model = Model(api, seed)
    for _ in range(60):
        model.step()
