// Handling errors the way robust integrations do.
import { answer, api, apiKey, given, TaskadeAPI, thrownBy } from './api.mjs';

class ResilientAPI {
  constructor(key, baseURL) {
    this.api = new TaskadeAPI(key, baseURL);
  }

  async requestWithRetry(method, path, options = {}, maxRetries = 3) {
    let lastError;

    for (let attempt = 1; attempt <= maxRetries; attempt++) {
      try {
        return await this.api.request(method, path, options);
      } catch (error) {
        lastError = error;

        if (error.status >= 400 && error.status < 500) {
          // The fault is in the request: asking again cannot help.
          throw error;
        }

        if (attempt < maxRetries) {
          // A tutorial waits seconds here; a test has no time for that.
          const delay = Math.pow(2, attempt) * 10;
          await new Promise((resolve) => setTimeout(resolve, delay));
        }
      }
    }

    throw lastError;
  }
}

// An integration whose key has been replaced: it meets a 401, fetches the new key and carries on.
async function projectsWithFreshKey() {
  let client = new TaskadeAPI('an-old-key');
  const seen = [];
  for (;;) {
    try {
      const projects = await client.get('/projects');
      return { seen, projects };
    } catch (error) {
      if (error.status !== 401) throw error;
      seen.push({ status: error.status, challenge: error.headers['www-authenticate'], problem: error.problem });
      client = new TaskadeAPI(apiKey);
    }
  }
}

const faults = {
  'no such task': () => api.get(`/tasks/${given.deleted_task_id}`),
  'no such person': () => api.post('/tasks', { name: 'Call', project_id: given.project_id, assignee: 'user_000' }),
  'one wrong task of three': () =>
    api.post('/tasks/bulk', {
      project_id: given.project_id,
      tasks: [{ name: 'Design' }, { name: 'Write', assignee: 'user_000' }, { description: 'No name' }],
    }),
  'a misspelled field': () => api.post('/tasks', { name: 'Call', project_id: given.project_id, priorty: 'high' }),
  'a misspelled filter': () => api.get('/tasks', { params: { asignee: 'user_456' } }),
  'a misspelled operator': () => api.get('/tasks', { params: { due_date: { $gt3: '2024-01-01' } } }),
};
const problems = {};
for (const [name, call] of Object.entries(faults)) problems[name] = (await thrownBy(call)).problem;

const resilient = new ResilientAPI(apiKey);
const notRetried = await thrownBy(() => resilient.requestWithRetry('GET', `/tasks/${given.deleted_task_id}`));
const afterClientError = resilient.api.calls;

// Nobody listens there: every attempt fails without a status, so each of the three is made.
const unreachable = new ResilientAPI(apiKey, given.unreachable);
const noAnswer = await thrownBy(() => unreachable.requestWithRetry('GET', '/projects'));

answer({
  freshKey: await projectsWithFreshKey(),
  problems,
  tasks: await api.get('/tasks', { params: { project_id: given.project_id } }),
  resilient: await resilient.requestWithRetry('GET', '/tasks', { params: { project_id: given.project_id } }),
  notRetried: notRetried.status,
  afterClientError,
  noAnswer: noAnswer.status ?? null,
  attempts: unreachable.api.calls,
});
