// One turn on the page: the question, what was found, each voice, what went wrong, and the answer in numbers.

import { DocumentsView } from "./documents.js";
import { element, grow } from "./elements.js";
import { figuresOf } from "./figures.js";
import { partView } from "./parts.js";

const LABELS = { first: "First token", speed: "Speed", tokens: "Tokens", ending: "Ending" };

export class TurnView {
  constructor(turn, { onAgain }) {
    this.turn = turn;
    this.findings = [];
    this.voices = [];
    const unsent = element("p", { className: "note unsent", hidden: !turn.unsent }, unsentWords(turn.unsent));
    this.pipeline = element("p", { className: "answerer" });
    this.found = element("div", { className: "found" });
    this.spoken = element("div", { className: "voices" });
    this.waiting = element("p", { className: "waiting" }, "waiting for the first token");
    this.problem = new ProblemView(onAgain);
    this.figures = new FiguresView();
    this.article = element(
      "article",
      {},
      element("h2", { className: "question" }, turn.question),
      unsent,
      this.pipeline,
      this.found,
      this.spoken,
      this.waiting,
      this.problem.element,
      this.figures.element,
    );
    this.element = element("li", { className: "turn" }, this.article);
  }

  show() {
    const { turn } = this;
    this.pipeline.textContent = turn.pipeline;
    grow(this.findings, turn.findings, this.found, (finding) => new DocumentsView(finding));
    grow(this.voices, turn.voices, this.spoken, (voice) => new VoiceView(voice));
    this.spoken.classList.toggle("several", turn.voices.length > 1);
    this.waiting.hidden = turn.isOver || turn.voices.length > 0;
    this.article.ariaBusy = String(!turn.isOver);
    this.problem.show(turn.ending);
    this.figures.show(turn);
  }
}

function unsentWords(turns) {
  const which = turns === 1 ? "the oldest turn" : `the ${turns} oldest turns`;
  return `Too long to be sent with this question: ${which} of the conversation.`;
}

/** What one component says. Its name is shown where there are several. */
class VoiceView {
  constructor({ component }) {
    this.parts = [];
    this.element = element("section", { className: "voice" }, element("h3", { className: "speaker" }, component));
  }

  show({ parts }) {
    grow(this.parts, parts, this.element, partView);
  }
}

class ProblemView {
  constructor(onAgain) {
    this.words = element("p");
    const again = element("button", { type: "button", onclick: onAgain }, "Ask again");
    this.element = element("div", { className: "problem", hidden: true }, this.words, again);
  }

  show(ending) {
    this.element.hidden = ending?.kind !== "problem";
    this.words.textContent = ending?.message ?? "";
  }
}

class FiguresView {
  constructor() {
    this.values = {};
    const rows = Object.entries(LABELS).map(([name, label]) => {
      this.values[name] = element("dd", { className: name }, "–");
      return element("div", {}, element("dt", {}, label), this.values[name]);
    });
    this.details = element("details", { className: "particulars", hidden: true }, element("summary", {}, "Details"));
    this.element = element("footer", { className: "figures" }, element("dl", {}, ...rows), this.details);
  }

  show(turn) {
    for (const [name, value] of Object.entries(figuresOf(turn))) {
      this.values[name].textContent = value;
      this.values[name].parentElement.hidden = value === "";
    }
    if (turn.isOver && this.details.hidden) {
      this.details.hidden = false;
      this.details.append(...particularsOf(turn));
    }
  }
}

function particularsOf({ runId, pipeline, ending }) {
  const { usage = [], outputs = {}, omitted_outputs: omitted = [], unkept_outputs: unkept = [] } = ending;
  const parts = [note(`Pipeline ${pipeline}, run ${runId}`)];
  if (usage.length) parts.push(usageTable(usage));
  if (Object.keys(outputs).length) parts.push(outputsView(outputs));
  if (omitted.length) parts.push(note(`Outputs too large to send: ${omitted.join(", ")}`));
  if (unkept.length) parts.push(note(`Outputs not kept over the reload, for want of room: ${unkept.join(", ")}`));
  return parts;
}

const note = (words) => element("p", { className: "note" }, words);

function usageTable(usage) {
  const row = (kind, ...cells) => element("tr", {}, ...cells.map((cell) => element(kind, {}, String(cell))));
  const rowOf = (used) =>
    row("td", used.component, used.model, used.prompt_tokens, used.completion_tokens, used.total_tokens);
  return element(
    "table",
    {},
    element("caption", {}, "Usage, in tokens, as the provider tells it"),
    element("thead", {}, row("th", "component", "model", "in", "out", "total")),
    element("tbody", {}, ...usage.map(rowOf)),
  );
}

function outputsView(outputs) {
  const text = element("pre", { tabIndex: 0, role: "group", ariaLabel: "Outputs" }, JSON.stringify(outputs, null, 2));
  return element("details", {}, element("summary", {}, "Outputs"), text);
}
