// The browsers' two clients of server-sent events, unmodified. They `tell` the test whatever they hear.
import { EventStreamContentType, fetchEventSource } from "./node_modules/@microsoft/fetch-event-source/lib/esm/index.js";

const FRAMES = ["metadata", "data", "gap", "end", "error"];

window.listen = (address, { closeAtEnd }) => {
  const source = new EventSource(address);
  source.onopen = () => tell({ kind: "open" });
  for (const name of FRAMES) {
    source.addEventListener(name, (event) => {
      // The gateway's `error` frames and the browser's own errors come to the same handler; only frames have data.
      if (event instanceof MessageEvent) {
        tell({ kind: "frame", event: name, id: event.lastEventId, data: event.data });
        if (name === "end" && closeAtEnd) source.close();
      } else {
        tell({ kind: source.readyState === EventSource.CLOSED ? "closed" : "lost" });
      }
    });
  }
  window.stop = () => source.close();
};

class Refused extends Error {}

// The handlers are those of the library's own README: 4xx is final, all else is tried again.
window.fetchEvents = (body, { openWhenHidden }) => {
  const controller = new AbortController();
  let isOver = false;
  fetchEventSource("/chat", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: controller.signal,
    openWhenHidden,
    async onopen(response) {
      if (response.ok && response.headers.get("content-type") === EventStreamContentType) {
        tell({ kind: "open" });
      } else if (response.status >= 400 && response.status < 500 && response.status !== 429) {
        throw new Refused(await response.text());
      } else {
        throw new Error(`status ${response.status}`);
      }
    },
    onmessage({ event, id, data }) {
      isOver ||= event === "end" || event === "error";
      tell({ kind: "frame", event, id, data });
    },
    onclose() {
      if (!isOver) throw new Error("the stream broke off");
    },
    onerror(error) {
      if (error instanceof Refused) throw error;
      tell({ kind: "lost" });
    },
  }).then(
    () => tell({ kind: "closed" }),
    (error) => tell({ kind: "refused", data: error.message }),
  );
  window.stop = () => controller.abort();
};

window.fetchEventSource = fetchEventSource; // for what the README shows
