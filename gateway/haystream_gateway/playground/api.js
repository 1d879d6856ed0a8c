// The gateway's addresses. What it refuses is thrown as a Refusal, in its own words.

export class Refusal extends Error {
  constructor(status, { detail, reason = "", retryable = false, errors = [] }) {
    super(detail ?? `The gateway answered with status ${status}.`);
    Object.assign(this, { status, reason, retryable, errors });
  }
}

let token = "";

/** Say with every call from now on who asks; without a token, nothing. */
export function identify(as) {
  token = as;
}

export const listPipelines = () => json("pipelines");

export const describePipeline = (name) => json(`pipelines/${encodeURIComponent(name)}`);

/** Begin a run; the same `run_id` with the same question attaches to it instead of running twice. */
export const startRun = (question, signal) =>
  answered("chat", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...question, label_components: true }),
    signal,
  });

/** Read a run from after a number on. Status 204: there is nothing more. */
export const attachTo = (runId, after, signal) =>
  answered(`runs/${encodeURIComponent(runId)}/events?after=${after}&label_components=true`, { signal });

/** Stop a run, also while the page is being left. */
export const cancelRun = (runId) =>
  answered(`runs/${encodeURIComponent(runId)}/cancel`, { method: "POST", keepalive: true });

async function json(address) {
  return (await answered(address)).json();
}

async function answered(address, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  const response = await fetch(address, { ...options, headers });
  if (response.ok) return response;
  throw new Refusal(response.status, await response.json().catch(() => ({}))); // a proxy's answer is not always JSON
}
