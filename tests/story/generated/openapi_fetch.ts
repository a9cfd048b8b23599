// Calls the server through types that openapi-typescript makes from the document, and openapi-fetch.
import createClient from "openapi-fetch";
import type { components, paths } from "./openapi.js";

declare const process: { env: Record<string, string | undefined> };

type Event = components["schemas"]["Event"];

const client = createClient<paths>({
  baseUrl: `${process.env.TASKADE_URL}/v1`,
  headers: { Authorization: `Bearer ${process.env.TASKADE_API_KEY}` },
});

const project = await client.POST("/projects", { body: { name: "Launch", type: "board" } });
if (project.error) throw new Error(project.error.detail);
const made = await client.POST("/tasks", {
  params: { header: { "Idempotency-Key": `fetch-${project.data.id}` } },
  body: { name: "Announce it", project_id: project.data.id, priority: "high", custom_fields: { hours: 2 } },
});
if (made.error) throw new Error(made.error.detail);
const id: string = made.data.id;

const listed = await client.GET("/tasks", {
  params: {
    query: {
      project_id: project.data.id,
      priority: ["high", "urgent"],
      created_at: { $gte: "2024-01-01" },
      sort: ["-created_at"],
      limit: 10,
    },
  },
});
if (listed.error) throw new Error(listed.error.detail);
const names: string[] = listed.data.map((task) => task.name);

const changed = await client.PATCH("/tasks/{id}", { params: { path: { id } }, body: { status: "completed" } });
if (changed.error) throw new Error(changed.error.detail);

const found = await client.POST("/tasks/query", {
  body: { filter: { project_id: project.data.id, $not: { priority: "low" } }, include: ["project"], count: true },
});
if (found.error) throw new Error(found.error.detail);

const missing = await client.GET("/tasks/{id}", { params: { path: { id: "task_01j9zq3v5kfg8wt2m4n6p8r0s2" } } });
const code = missing.error?.code;

const events = await client.GET("/events", { params: { query: { types: ["task.completed"], object_id: id } } });
if (events.error) throw new Error(events.error.detail);

function about(event: Event): string {
  // The type of the event decides which type its data has.
  return event.type === "task.completed" ? event.data.priority : event.id;
}

// What is not in the document is a mistake that the compiler finds.
// @ts-expect-error: the member is called assignee
const misspelt: components["schemas"]["TaskCreate"] = { name: "x", asignee: "ana" };
// @ts-expect-error: there is no such priority
const unheard: components["schemas"]["TaskCreate"] = { name: "x", priority: "critical" };
void [misspelt, unheard];

console.log(
  JSON.stringify({
    names,
    hours: made.data.custom_fields.hours,
    completed: changed.data.completed_at !== null,
    project: found.data.map((task) => task.project?.name),
    code,
    priorities: events.data.map(about),
  }),
);
