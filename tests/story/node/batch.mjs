// Several operations at once with axios and with fetch, and a write that is sent until it is answered.
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { answer, api, apiKey, given, thrownBy } from './api.mjs';

const batchUpdate = await api.post('/batch', {
  operations: [
    {
      method: 'PUT',
      path: `/tasks/${given.task_id}`,
      body: { status: 'completed' }
    },
    {
      method: 'POST',
      path: '/tasks',
      body: { name: 'Follow-up task', project_id: given.project_id }
    },
    {
      method: 'DELETE',
      path: `/tasks/${given.other_task_id}`
    }
  ]
});

const failed = await thrownBy(() => api.post('/batch', {
  operations: [
    { method: 'POST', path: '/tasks', body: { name: 'Never', project_id: given.project_id } },
    { method: 'PUT', path: `/tasks/${given.other_task_id}`, body: { status: 'completed' } }
  ]
}));

async function fetched(path, body, headers = {}) {
  const response = await fetch(process.env.BASE_URL + path, {
    method: 'POST',
    headers: { Authorization: `Bearer ${apiKey}`, 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(body)
  });
  return { status: response.status, replayed: response.headers.get('idempotent-replayed'), body: await response.json() };
}

const launch = await fetched('/batch', {
  operations: [
    { id: 'project', method: 'POST', path: '/projects', body: { name: 'Launch' } },
    { method: 'POST', path: '/tasks', body: { name: 'First', project_id: { $ref: 'project.id' } } },
    { method: 'GET', path: '/tasks?project_id={project.id}&fields=name' }
  ]
});

// A connection that breaks after the request was sent: the server has it, the client knows nothing.
function sentIntoTheDark(path, body, headers) {
  return new Promise((resolve) => {
    const request = http.request(process.env.BASE_URL + path, {
      method: 'POST',
      headers: { Authorization: `Bearer ${apiKey}`, 'Content-Type': 'application/json', ...headers }
    });
    request.on('error', () => {});
    request.on('close', resolve);
    request.end(JSON.stringify(body), () => setTimeout(() => request.destroy(new Error('the cable')), 20));
  });
}

async function untilAnswered(path, body) {
  const headers = { 'Idempotency-Key': randomUUID() };
  await sentIntoTheDark(path, body, headers);
  for (let attempt = 0; attempt < 600; attempt++) {
    const response = await fetched(path, body, headers);
    if (response.status !== 409) return [response, await fetched(path, body, headers)];
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error('no answer');
}

const once = await untilAnswered('/tasks', { name: 'Only once', project_id: given.project_id });

answer({ batchUpdate, failed: failed.problem, launch, once });
