// Calls the server through the client that @hey-api/openapi-ts makes from the document.
import { client } from "./hey/client.gen.js";
import * as api from "./hey/index.js";

declare const process: { env: Record<string, string | undefined> };

client.setConfig({
  baseUrl: `${process.env.TASKADE_URL}/v1`,
  auth: () => process.env.TASKADE_API_KEY,
  throwOnError: true,
});

const project = await api.projectsCreate({ body: { name: "Launch", visibility: "private" }, throwOnError: true });
const made = await api.tasksCreate({
  body: { name: "Announce it", project_id: project.data.id, priority: "high", labels: ["web"] },
  throwOnError: true,
});
const task: api.Task = made.data;

const listed = await api.tasksList({
  query: { project_id: project.data.id, due_date: { $exists: false }, sort: ["name"] },
  throwOnError: true,
});
const names: string[] = listed.data.map((one) => one.name);

const done = await api.tasksComplete({ path: { id: task.id }, throwOnError: true });
const bulk = await api.tasksUpdateBulk({ body: { ids: [task.id], set: { priority: "low" } }, throwOnError: true });
const batch = await api.batch({
  body: { operations: [{ method: "GET", path: `/tasks/${task.id}` }] },
  throwOnError: true,
});
const refused = await api.tasksCreate({ body: { name: "" }, throwOnError: false });
const problem = refused.error as api.Problem;

// What a webhook receives has all members, and its type says which.
function received(event: api.TaskEvent): string {
  return `${event.data.id} ${event.data.version} ${event.data.created_at}`;
}
void received;

console.log(
  JSON.stringify({
    names,
    labels: task.labels,
    completed: done.data.completed_at !== null,
    priorities: bulk.data.map((one) => one.priority),
    statuses: batch.data.results.map((result) => result.status),
    pointers: problem.errors?.map((issue) => issue.pointer),
  }),
);
