// Reading, creating and changing tasks with axios.
import { answer, api, given } from './api.mjs';

const tasks = await api.get('/tasks', {
  params: {
    project_id: given.project_id,
    assignee: 'user_456',
    status: 'pending',
    due_before: '2024-01-31',
  },
});

const newTasks = await api.post('/tasks/bulk', {
  tasks: [
    { name: 'Design mockups', assignee: 'user_123' },
    { name: 'Write documentation', assignee: 'user_456' },
    { name: 'Code review', assignee: 'user_789' },
  ],
});
const single = await api.post('/tasks', { name: 'No project named' });
const inbox = await api.get(`/projects/${single.project_id}`);

const taskId = given.task_id;
const before = await api.get(`/tasks/${taskId}`);
const updated = await api.put(`/tasks/${taskId}`, {
  name: 'Updated task name',
  priority: 'high',
  custom_fields: {
    estimated_hours: 8,
    difficulty: 'medium',
  },
});
const harder = await api.put(`/tasks/${taskId}`, { custom_fields: { difficulty: 'hard' } });

answer({ tasks, newTasks, single, inbox, before, updated, harder, stored: await api.get(`/tasks/${taskId}`) });
