// Reads server-sent events (WHATWG HTML, 9.2) from the body of a fetch. Knows nothing of what they mean.

export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let fields = {};
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return; // an event without its empty line is not an event
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (fields.data) yield { id: fields.id, event: fields.event, data: JSON.parse(fields.data) };
          fields = {};
        } else {
          Object.assign(fields, fieldOf(line));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading early lets the connection go
  }
}

// A line that begins with a colon is a comment; ours fill silence.
function fieldOf(line) {
  const colon = line.indexOf(":");
  return colon > 0 ? { [line.slice(0, colon)]: line.slice(colon + 1).replace(/^ /, "") } : {};
}
