// One question and its answer as it grows: plain data, so that it can be stored in the middle and go on after a reload.

const FIRST_TOKENS = new Set(["data", "reasoning", "tool_call"]);

export class Turn {
  constructor({ question, pipeline, runId, unsent }) {
    this.question = question;
    this.pipeline = pipeline;
    this.runId = runId;
    this.unsent = unsent; // how many turns before it were too long to be sent with it
    this.seq = 0; // of the last frame that was taken
    this.speaker = { component: "", index: 0 }; // whose text comes
    this.findings = []; // {component, documents}
    this.voices = []; // {component, parts}: the parts of one component, in order
    this.characters = 0; // of all that the model has said, aloud or not
    this.times = { asked: Date.now(), first: null, last: null }; // milliseconds; they outlive the page
    this.isBroken = false; // read over several connections, so that its times tell less than they seem to
    this.ending = null; // {kind: "end" | "problem" | "stopped", …}
  }

  /** Return a turn that was stored. */
  static from(stored) {
    return Object.assign(Object.create(Turn.prototype), stored);
  }

  get isOver() {
    return this.ending !== null;
  }

  /** All text of the answer, as the next question's history has it. */
  get answer() {
    const texts = this.voices.map(({ parts }) =>
      parts
        .filter(({ kind }) => kind === "text")
        .map(({ text }) => text)
        .join("\n\n"),
    );
    return texts.filter(Boolean).join("\n\n");
  }

  take({ seq, event, data }) {
    this.seq = seq ?? this.seq;
    if (FIRST_TOKENS.has(event)) this.mark(event === "data" ? data : data.delta ?? data.arguments_delta);
    TAKE[event]?.(this, data); // a newer gateway may have kinds that this page does not know
  }

  mark(text) {
    this.characters += text.length;
    this.times.last = Date.now();
    this.times.first ??= this.times.last;
  }

  end(ending) {
    this.ending ??= ending;
  }

  fail(message) {
    this.end({ kind: "problem", message });
  }
}

const TAKE = {
  metadata: (turn, { pipeline }) => (turn.pipeline = pipeline),
  component: (turn, speaker) => (turn.speaker = speaker),
  data: (turn, text) => say(turn, turn.speaker, "text", text),
  reasoning: (turn, { delta, ...speaker }) => say(turn, speaker, "reasoning", delta),
  tool_call: takeCall,
  tool_result: takeResult,
  documents: (turn, { component, documents }) => turn.findings.push({ component, documents }),
  gap: (turn) => partsOf(turn, turn.speaker.component).push({ kind: "gap" }),
  error: (turn, { message }) => turn.fail(message),
  end: (turn, data) => turn.end({ kind: "end", ...data }),
};

function partsOf(turn, component) {
  let voice = turn.voices.find((voice) => voice.component === component);
  if (!voice) turn.voices.push((voice = { component, parts: [] }));
  return voice.parts;
}

/** Text that continues the newest part joins it. */
function say(turn, { component, index }, kind, text) {
  const parts = partsOf(turn, component);
  const newest = parts.at(-1);
  if (newest?.kind === kind && newest.index === index) newest.text += text;
  else parts.push({ kind, index, text });
}

/** A call's first piece has its name; an Agent's later turns count their calls from zero again. */
function takeCall(turn, { component, index, id, name, arguments_delta: delta }) {
  const parts = partsOf(turn, component);
  const open = parts.findLast((part) => part.kind === "call" && part.index === index);
  if (open && (!name || (id && id === open.id))) open.arguments += delta;
  else parts.push({ kind: "call", index, id, name, arguments: delta, result: null });
}

function takeResult(turn, { component, id, name, result, is_error: isError, truncated }) {
  const parts = partsOf(turn, component);
  const waiting = (part) => part.kind === "call" && part.result === null && (id ? part.id === id : part.name === name);
  let call = parts.find(waiting);
  if (!call) parts.push((call = { kind: "call", index: -1, id, name, arguments: "", result: null }));
  call.result = { text: result, isError, truncated };
}
