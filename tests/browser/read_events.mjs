// Reads streams of server-sent events with eventsource-parser. Each line in is a list of chunks in base64, each line
// out the list of their events: what was in the stream, in JSON.
import { createInterface } from "node:readline";

import { createParser } from "eventsource-parser";

function eventsOf(chunks) {
  const events = [];
  let lastEventId = "";
  const parser = createParser({
    onId: (id) => (lastEventId = id),
    onEvent: ({ event, data }) => events.push([event || "message", lastEventId, data]),
  });
  const decoder = new TextDecoder();
  for (const chunk of chunks) parser.feed(decoder.decode(Buffer.from(chunk, "base64"), { stream: true }));
  return events;
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(eventsOf(JSON.parse(line))));
}
