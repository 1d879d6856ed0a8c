// The page: one question at a time, its answer as it comes, and a way to stop it.

import { events } from "./sse.js";

const at = (id) => document.getElementById(id);
const CHARACTERS_PER_TOKEN = 4; // an estimate for the way; the end brings the provider's own count

let running = null; // the AbortController of the answer that is coming
let descriptions = {};

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(at("query").value, at("pipeline").value);
});
at("stop").addEventListener("click", () => running?.abort());
at("pipeline").addEventListener("change", describe);
at("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

async function listPipelines() {
  try {
    const response = await fetch("pipelines");
    if (!response.ok) throw new Error((await response.json()).detail);
    const { pipelines, default_pipeline: preferred } = await response.json();
    descriptions = Object.fromEntries(pipelines.map(({ name, description, error }) => [name, error || description]));
    at("pipeline").replaceChildren(...pipelines.map(({ name, ready }) => option(name, ready, name === preferred)));
    describe();
    at("state").textContent = "ready";
  } catch (error) {
    at("state").textContent = error.message;
    setTimeout(listPipelines, 2000);
  }
}

function option(name, ready, selected) {
  const element = new Option(name, name, selected, selected);
  element.disabled = !ready;
  return element;
}

function describe() {
  at("description").textContent = descriptions[at("pipeline").value] ?? "";
}

async function ask(query, pipeline) {
  if (running) return;
  const answer = new Answer(query);
  running = new AbortController();
  busy(true);
  try {
    const response = await fetch("chat", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ query, pipeline }),
      signal: running.signal,
    });
    if (!response.ok) return answer.fail((await response.json()).detail);
    for await (const { event, data } of events(response.body)) answer.take(event, data);
    if (!answer.ended) answer.fail("The connection was lost before the answer ended.");
  } catch (error) {
    if (running.signal.aborted) answer.end("stopped");
    else answer.fail("The gateway cannot be reached.");
  } finally {
    running = null;
    busy(false);
  }
}

function busy(is) {
  at("send").disabled = is;
  at("stop").disabled = !is;
  at("answer").setAttribute("aria-busy", String(is));
}

class Answer {
  constructor(query) {
    this.startedAt = performance.now();
    this.firstAt = null;
    this.length = 0;
    this.ended = false;
    at("question").textContent = query;
    at("question").hidden = false;
    at("answer").textContent = "";
    at("problem").hidden = true;
    at("figures").hidden = false;
    for (const id of ["first-word", "speed", "tokens", "ending"]) at(id).textContent = "–";
  }

  take(event, data) {
    if (event === "data") this.grow(data);
    else if (event === "end") this.finish(data);
    else if (event === "error") this.fail(data.message);
  }

  grow(text) {
    const now = performance.now();
    if (this.firstAt === null) {
      this.firstAt = now;
      at("first-word").textContent = `${Math.round(now - this.startedAt)} ms`;
    }
    at("answer").append(text);
    this.length += text.length;
    this.speed(this.length / CHARACTERS_PER_TOKEN, "about ");
  }

  speed(tokens, prefix) {
    const seconds = (performance.now() - this.firstAt) / 1000;
    at("tokens").textContent = `${prefix}${Math.round(tokens)}`;
    if (seconds > 0.1) at("speed").textContent = `${prefix}${(tokens / seconds).toFixed(0)} tokens/s`;
  }

  finish({ reason, usage }) {
    const tokens = usage.reduce((sum, { completion_tokens }) => sum + completion_tokens, 0);
    if (tokens && this.firstAt !== null) this.speed(tokens, "");
    this.end(reason.toLowerCase().replaceAll("_", " "));
  }

  fail(message) {
    at("problem").textContent = message;
    at("problem").hidden = false;
    this.end("error");
  }

  end(word) {
    this.ended = true;
    at("ending").textContent = word;
  }
}

listPipelines();
