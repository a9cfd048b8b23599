// Managing workspaces with axios.
import { answer, api } from './api.mjs';

const newWorkspace = await api.post('/workspaces', {
  name: 'API Development Workspace',
  description: 'For custom API integrations',
});
const workspaces = await api.get('/workspaces');

const workspaceId = newWorkspace.id;
const updated = await api.put(`/workspaces/${workspaceId}`, {
  settings: { theme: 'dark', notifications: true },
});
// Settings merge: what this call does not name stays as it was.
const merged = await api.put(`/workspaces/${workspaceId}`, { settings: { notifications: false } });

answer({ newWorkspace, workspaces, updated, merged, stored: await api.get(`/workspaces/${workspaceId}`) });
