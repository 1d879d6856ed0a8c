// A run's frames, over as many connections as it takes: none is lost, none comes twice.

import { Refusal, attachTo, startRun } from "./api.js";
import { events } from "./sse.js";

// The service lets a run without a reader go on for this long: a reload finds it, and a page that is closed stops it.
export const GRACE_SECONDS = 10;

const WAITS = [250, 750, 1500, 3000, 6000]; // milliseconds before each try; a little longer than the grace in all

// After these the run may still be there. All other errors are its last word.
const LOST = new Set(["DRAINING", "SERVICE_SILENT", "SERVICE_UNREACHABLE", "SLOW_READER"]);

/** The connection broke, and did not come back. */
export class Lost extends Error {}

/** Return an id that nobody else has. `randomUUID` would need a secure context. */
export function newRunId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Yield `{seq, event, data}` of a run from after `seq` on, up to the last frame. With a request the run is begun, or
 * else it is attached to. `onLost(attempt, attempts)` is called before each further try, and `onConnected()` when one
 * has come through. Throws Refusal and Lost.
 */
export async function* framesOf({ runId, seq, request, signal }, { onLost, onConnected }) {
  for (let attempt = 0; ; attempt++) {
    let trouble = "The connection was lost before the answer ended.";
    try {
      const response = await (request ? startRun(request, signal) : attachTo(runId, seq, signal));
      request = null; // begun: from now on it is attached to
      onConnected();
      if (response.status === 204) return;
      for await (const frame of numbered(response.body)) {
        if (isLoss(frame)) {
          trouble = frame.data.message;
          break;
        }
        if (frame.seq !== null && frame.seq <= seq) continue; // was read over an earlier connection
        seq = frame.seq ?? seq;
        attempt = 0;
        yield frame;
        if (frame.event === "end" || frame.event === "error") return;
      }
    } catch (error) {
      const isEarly = error.reason === "RUN_NOT_FOUND" && seq === 0 && attempt === 0; // its question may be on the way
      if (signal.aborted || (isFinal(error, request) && !isEarly)) throw error;
      trouble = error instanceof Refusal ? error.message : "The gateway cannot be reached.";
    }
    if (attempt === WAITS.length) throw new Lost(trouble);
    onLost(attempt + 1, WAITS.length);
    await pause(WAITS[attempt], signal);
  }
}

/** Whether trying again is in vain. A refusal to begin is the asker's to decide about, also one that may pass. */
const isFinal = (error, request) => error instanceof Refusal && (request || !error.retryable);

async function* numbered(body) {
  for await (const { id, event, data } of events(body)) {
    const seq = id ? Number(id.slice(id.lastIndexOf(":") + 1)) : null; // labels have no place of their own in the run
    yield { seq, event, data };
  }
}

const isLoss = ({ event, data }) => event === "error" && data.retryable && LOST.has(data.reason);

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
