// What an answer is made of, on the page: text, reasoning, tool calls, and what is missing.

import { element } from "./elements.js";

/** Text that only grows is appended to: what a reader has selected stays selected. */
class Growing {
  constructor(container) {
    this.node = container.appendChild(document.createTextNode(""));
  }

  show(text) {
    this.node.appendData(text.slice(this.node.length));
  }
}

class TextView {
  constructor() {
    this.element = element("p", { className: "text" });
    this.text = new Growing(this.element);
  }

  show({ text }) {
    this.text.show(text);
  }
}

/** Open while the model reasons, and folded when it goes on, unless the reader has decided otherwise. */
class ReasoningView {
  constructor() {
    this.summary = element("summary");
    const words = element("p");
    this.element = element("details", { className: "reasoning", open: true }, this.summary, words);
    this.summary.addEventListener("click", () => (this.isDecided = true));
    this.text = new Growing(words);
  }

  show({ text }, isNewest) {
    this.text.show(text);
    this.summary.textContent = isNewest ? "Reasoning …" : "Reasoning";
    if (!this.isDecided) this.element.open = isNewest;
  }
}

class CallView {
  constructor({ name }) {
    this.arguments = element("dl", { className: "arguments" });
    this.result = element("p", { className: "result" });
    const title = element("p", { className: "tool" }, element("span", { className: "unseen" }, "Tool call: "), name);
    this.element = element("div", { className: "call" }, title, this.arguments, this.result);
  }

  show({ arguments: text, result }) {
    if (text.length !== this.shown) this.arguments.replaceChildren(...rowsOf(text));
    this.shown = text.length;
    this.element.classList.toggle("failed", Boolean(result?.isError));
    this.result.replaceChildren(...wordsOf(result));
  }
}

class GapView {
  constructor() {
    this.element = element("p", { className: "gap" }, "Some of the answer is missing here: it was read too late.");
  }

  show() {}
}

const VIEWS = { text: TextView, reasoning: ReasoningView, call: CallView, gap: GapView };

export const partView = (part) => new VIEWS[part.kind](part);

/** Arguments come as JSON, piece by piece: until it is whole it is shown as it stands. */
function rowsOf(text) {
  let values;
  try {
    values = Object.entries(JSON.parse(text));
  } catch {
    return text ? [element("dd", { className: "raw" }, text)] : [];
  }
  return values.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, asText(value))),
  );
}

function wordsOf(result) {
  if (!result) return [element("span", { className: "note" }, "running …")];
  const { text, isError, truncated } = result;
  const label = element("span", { className: "note" }, isError ? "failed" : "result");
  return [label, " ", element("span", { className: "value" }, text), truncated ? " … (cut)" : ""];
}

export const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));
