// All that is sent besides the question: the pipeline's inputs, how the model samples, and the caller's own key.

import { at } from "./elements.js";
import { FieldGroup } from "./form.js";
import { fieldsOf } from "./schema.js";

const GENERATION = [
  { path: "temperature", name: "Temperature", kind: "number", note: "0 is the same each time, higher is freer",
    schema: { minimum: 0 } },
  { path: "max_tokens", name: "Most tokens", kind: "integer", note: "where the answer is cut", schema: { minimum: 1 } },
].map((field) => ({ component: "", choices: [], placeholder: "", isRequired: false, ...field }));

export class Settings {
  /** `stored` has the texts of each form by name, and is kept up to date. */
  constructor(stored, onChange) {
    this.stored = stored;
    const changed = () => (this.store(), onChange());
    this.inputs = new FieldGroup(at("inputs"), changed);
    this.generation = new FieldGroup(at("generation"), changed);
    this.key = at("api-key");
    this.key.addEventListener("input", () => this.countKey());
    at("settings").addEventListener("submit", (event) => event.preventDefault());
    this.inputs.show([]);
    this.generation.show([]);
  }

  /** Show the form of a pipeline. */
  show(pipeline, schema) {
    const fields = fieldsOf(schema);
    const isGenerator = fields.some(({ name }) => name === "generation_kwargs");
    this.pipeline = pipeline;
    this.inputs.details.open = false;
    this.inputs.show(fields, this.stored[`inputs of ${pipeline}`]);
    this.generation.show(isGenerator ? GENERATION : [], this.stored.generation);
  }

  store() {
    this.stored[`inputs of ${this.pipeline}`] = this.inputs.typed;
    if (this.generation.views.length) this.stored.generation = this.generation.typed;
  }

  /** Return what a request has of these; only what is set. */
  request() {
    const request = {};
    for (const [{ component, name }, value] of this.inputs.values()) {
      ((request.inputs ??= {})[component] ??= {})[name] = value;
    }
    for (const [{ path }, value] of this.generation.values()) {
      (request.generation_kwargs ??= {})[path] = value;
    }
    if (this.key.value) request.api_key = this.key.value;
    return request;
  }

  /** The first field that has something wrong, for the reader to be taken to. */
  get firstWrong() {
    return this.inputs.firstWrong ?? this.generation.firstWrong;
  }

  /** Say what a refusal says of fields, at these fields; return the first of them. */
  complain({ errors = [], reason }) {
    for (const { field, message } of errors) {
      const [place, ...rest] = field.split(".");
      if (place === "inputs") this.inputs.complain(rest.join("."), message);
      if (place === "generation_kwargs") this.generation.complain(rest.join("."), message);
    }
    return reason === "API_KEY_REQUIRED" ? { element: this.key, control: this.key } : this.firstWrong;
  }

  countKey() {
    at("key").querySelector(".count").textContent = this.key.value ? "set" : "";
  }
}
