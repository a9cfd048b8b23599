// One question in every spelling that axios, fetch, URLSearchParams and qs have for it.
import axios from 'axios';
import qs from 'qs';
import { answer, given } from './api.mjs';

const headers = { Authorization: `Bearer ${process.env.API_KEY}` };
const base = `${process.env.BASE_URL}/tasks`;

const criteria = {
  project_id: given.project_id,
  assignee: ['user_456', 'user_789'],
  due_date: { $gte: '2024-01-01', $lte: '2024-01-31' },
  priority: 'high',
  labels: { $in: ['urgent', 'client-work'] },
};
const shape = { sort: '-due_date', limit: 50, include: ['assignee', 'project'] };
const params = { ...criteria, ...shape };

async function withAxios(config) {
  return (await axios.get(base, { headers, ...config })).data;
}

async function withFetch(query) {
  const response = await fetch(`${base}?${query}`, { headers });
  if (!response.ok) throw new Error(`${query}: ${await response.text()}`);
  return response.json();
}

// URLSearchParams knows no nesting, so people flatten by hand: a list is repeated, bracketed, numbered or joined.
function flat(list) {
  const query = new URLSearchParams({
    project_id: given.project_id,
    'due_date[$gte]': '2024-01-01',
    'due_date[$lte]': '2024-01-31',
    priority: 'high',
    sort: '-due_date',
    limit: 50,
  });
  list(query, 'assignee', criteria.assignee);
  list(query, 'labels[$in]', criteria.labels.$in);
  list(query, 'include', shape.include);
  return query;
}

const repeated = (query, name, values) => values.forEach((value) => query.append(name, value));
const bracketed = (query, name, values) => values.forEach((value) => query.append(`${name}[]`, value));
const numbered = (query, name, values) => values.forEach((value, i) => query.append(`${name}[${i}]`, value));
const joined = (query, name, values) => query.set(name, values.join(','));

const spellings = {
  axios: () => withAxios({ params }),
  'axios, arrays repeated': () => withAxios({ params, paramsSerializer: { indexes: null } }),
  'axios, arrays numbered': () => withAxios({ params, paramsSerializer: { indexes: true } }),
  'axios, one JSON filter': () => withAxios({ params: { filter: JSON.stringify(criteria), ...shape } }),
  'fetch, repeated': () => withFetch(flat(repeated)),
  'fetch, bracketed': () => withFetch(flat(bracketed)),
  'fetch, numbered': () => withFetch(flat(numbered)),
  'fetch, joined by commas': () => withFetch(flat(joined)),
  'fetch, one JSON filter': () =>
    withFetch(new URLSearchParams({ filter: JSON.stringify(criteria), ...shape, include: 'assignee,project' })),
};
for (const arrayFormat of ['indices', 'brackets', 'repeat', 'comma']) {
  const text = (encode) => qs.stringify(params, { arrayFormat, encode });
  spellings[`qs ${arrayFormat}`] = () => withFetch(text(true));
  spellings[`qs ${arrayFormat}, not encoded`] = () => withFetch(text(false));
  spellings[`axios with qs ${arrayFormat}`] = () =>
    withAxios({ params, paramsSerializer: { serialize: (all) => qs.stringify(all, { arrayFormat }) } });
}

const found = {};
for (const [name, ask] of Object.entries(spellings)) {
  const tasks = await ask().catch((error) => [error.response?.data ?? error.message]);
  found[name] = tasks.map((task) => (task.id ? [task.id, task.assignee.name, task.project.name] : task));
}
answer(found);
