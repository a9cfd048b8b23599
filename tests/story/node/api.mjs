// What a JavaScript user writes first: a few lines over axios that answer with the data itself and throw errors which
// carry `status` and `retryAfter`. Every script here uses it, so that the calls read as they do in a tutorial.
import axios from 'axios';

export class TaskadeAPI {
  constructor(apiKey, baseURL = process.env.BASE_URL) {
    this.http = axios.create({ baseURL, headers: { Authorization: `Bearer ${apiKey}` } });
    this.calls = 0;
  }

  async request(method, path, options = {}) {
    this.calls += 1;
    try {
      const response = await this.http.request({ method, url: path, ...options });
      return response.data;
    } catch (error) {
      if (!error.response) throw error;
      const { status, headers, data } = error.response;
      const retryAfter = 'retry-after' in headers ? Number(headers['retry-after']) * 1000 : undefined;
      throw Object.assign(new Error(`${status}: ${data.detail}`), { status, retryAfter, headers, problem: data });
    }
  }

  get(path, options) {
    return this.request('GET', path, options);
  }

  post(path, data) {
    return this.request('POST', path, { data });
  }

  put(path, data) {
    return this.request('PUT', path, { data });
  }

  patch(path, data) {
    return this.request('PATCH', path, { data });
  }

  delete(path) {
    return this.request('DELETE', path);
  }
}

export const apiKey = process.env.API_KEY;
export const api = new TaskadeAPI(apiKey);

// What the test prepared on the server: ids, mostly.
export const given = JSON.parse(process.env.GIVEN);

// What the test looks at afterwards.
export function answer(values) {
  console.log(JSON.stringify(values));
}

// The error that a call is expected to throw.
export async function thrownBy(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error('the call was expected to fail, and did not');
}
