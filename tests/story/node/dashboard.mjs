// A company's own view of its customers, built on the API.
import { answer, api, apiKey, given, TaskadeAPI } from './api.mjs';

class CustomerDashboard {
  constructor(key) {
    this.api = new TaskadeAPI(key);
  }

  async getCustomerProjects(customerId) {
    return await this.api.get('/projects', {
      params: {
        'custom_fields.customer_id': customerId,
        include: ['tasks', 'members'],
      },
    });
  }

  async updateCustomerStatus(projectId, status) {
    return await this.api.put(`/projects/${projectId}`, {
      custom_fields: { status },
      updated_at: new Date().toISOString(),
    });
  }

  async createSupportTicket(customerId, issue) {
    const project = await this.api.post('/projects', {
      name: `Support: ${issue.title}`,
      type: 'list',
      custom_fields: {
        customer_id: customerId,
        priority: issue.priority,
        category: issue.category,
      },
    });

    await this.api.post('/tasks', {
      name: issue.description,
      project_id: project.id,
      assignee: 'support_team_lead',
    });

    return project;
  }
}

const dashboard = new CustomerDashboard(apiKey);
const { customer_id: customerId, customer_number: customerNumber } = given;
const issue = { title: 'Invoice missing', description: 'Send March again', priority: 'high', category: 'billing' };

const ticket = await dashboard.createSupportTicket(customerId, issue);
const second = await dashboard.createSupportTicket(customerId, { ...issue, title: 'Login fails' });
// Near misses: another customer, and one whose id only begins the same way.
await dashboard.createSupportTicket(`${customerId}1`, issue);
await api.post('/projects', { name: 'No customer at all' });

await api.post('/tasks', { name: 'Call back', project_id: ticket.id, labels: ['phone'] });
await api.post(`/projects/${ticket.id}/members`, { user: 'user_456', role: 'editor' });
const updated = await dashboard.updateCustomerStatus(ticket.id, 'waiting');

// Some companies number their customers: the number goes out in a JSON body and comes back in a query string.
const numbered = await dashboard.createSupportTicket(customerNumber, issue);

answer({
  ticket,
  second,
  updated,
  numbered,
  projects: await dashboard.getCustomerProjects(customerId),
  projectsOfNumber: await dashboard.getCustomerProjects(customerNumber),
  projectsOfNobody: await dashboard.getCustomerProjects('nobody'),
});
