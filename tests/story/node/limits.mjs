// Living with a rate limit: spend the budget, be told how long to wait, wait that long and be served.
import { answer, api } from './api.mjs';

const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const began = Date.now();
let served = 0;
let refusal;
while (!refusal) {
  try {
    await api.get('/projects');
    served += 1;
  } catch (error) {
    if (error.status !== 429) throw error;
    refusal = error;
  }
}
const seconds = (Date.now() - began) / 1000;

await delay(refusal.retryAfter);
const projects = await api.get('/projects');

const { retryAfter, headers, problem } = refusal;
answer({ served, seconds, retryAfter, headers, problem, projects });
