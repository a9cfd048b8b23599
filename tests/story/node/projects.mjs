// The life of a project with axios.
import { answer, api, given } from './api.mjs';

const projects = await api.get('/projects', {
  params: { workspace_id: given.workspace_id, type: 'board' },
});

const project = await api.post('/projects', {
  name: 'Customer Onboarding',
  template_id: given.template_id,
  workspace_id: given.workspace_id,
});
const tasks = await api.get('/tasks', { params: { project_id: project.id } });

const projectId = given.project_id;
const before = await api.get(`/projects/${projectId}`);
const patched = await api.patch(`/projects/${projectId}`, {
  description: 'Updated project description',
  due_date: '2024-02-01',
});

answer({ projects, project, tasks, before, patched, stored: await api.get(`/projects/${projectId}`) });
