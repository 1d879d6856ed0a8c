// Fields on the page: each with its label, its note, and a place for what is wrong with it.

import { element } from "./elements.js";
import { asTyped, valueOf } from "./schema.js";

export class FieldView {
  constructor(field, id, typed, onChange) {
    this.field = field;
    this.control = controlOf(field, { id, value: typed });
    this.note = element("p", { id: `${id}-note`, className: "note" }, field.note);
    this.complaint = element("p", { id: `${id}-complaint`, className: "complaint" });
    this.control.setAttribute("aria-describedby", `${this.note.id} ${this.complaint.id}`);
    this.control.addEventListener("input", onChange);
    this.control.addEventListener("change", () => this.check()); // not while somebody still types
    const mark = element("span", { className: "required" }, field.isRequired ? "required" : "");
    const label = element("label", { htmlFor: id }, field.name, " ", mark);
    this.element = element("div", { className: "field" }, label, this.control, this.note, this.complaint);
  }

  get typed() {
    return this.control.value;
  }

  /** Return the value; undefined where none is set or it is wrong, which the field then says. */
  check() {
    try {
      const value = valueOf(this.field, this.typed);
      this.complain("");
      return value;
    } catch (error) {
      this.complain(error.message);
      return undefined;
    }
  }

  complain(words) {
    this.complaint.textContent = words;
    this.control.ariaInvalid = String(words !== "");
  }

  get isWrong() {
    return this.complaint.textContent !== "";
  }
}

function controlOf(field, { id, value }) {
  const common = { id, ariaRequired: String(field.isRequired) };
  const choices = field.kind === "boolean" ? ["true", "false"] : field.choices.map(asTyped);
  if (choices.length) {
    const none = new Option(field.placeholder ? `default: ${field.placeholder}` : "not set", "");
    const control = element("select", common, none, ...choices.map((choice) => new Option(choice)));
    control.value = choices.includes(value) ? value : "";
    return control;
  }
  const isLong = ["array", "object"].includes(field.kind);
  const control = element(isLong ? "textarea" : "input", {
    ...common,
    placeholder: field.placeholder,
    spellcheck: false,
    autocomplete: "off",
    value,
  });
  if (isLong) control.rows = 2;
  if (field.kind === "integer" || field.kind === "number") control.inputMode = "decimal";
  return control;
}

/** A group of fields that is folded away, and tells how many of them are set. */
export class FieldGroup {
  constructor(details, onChange) {
    this.details = details;
    this.views = [];
    this.onChange = () => (this.count(), onChange());
  }

  /** Show fields with what was typed there before, each component's under its name. */
  show(fields, typed = {}) {
    const idOf = (index) => `${this.details.id}-${index}`; // a path may have any letters
    this.views = fields.map(
      (field, index) => new FieldView(field, idOf(index), typed[field.path] ?? "", this.onChange),
    );
    this.details.querySelector(".fields").replaceChildren(...this.grouped());
    this.details.hidden = fields.length === 0;
    this.details.open ||= fields.some(({ isRequired }) => isRequired);
    this.count();
  }

  grouped() {
    const owners = new Set(this.views.map(({ field }) => field.component));
    return [...owners].map((owner) => {
      const elements = this.views.filter(({ field }) => field.component === owner).map((view) => view.element);
      return element("fieldset", {}, ...(owner ? [element("legend", {}, owner)] : []), ...elements);
    });
  }

  /** Return what is typed, by path. */
  get typed() {
    return Object.fromEntries(this.views.filter(({ typed }) => typed).map(({ field, typed }) => [field.path, typed]));
  }

  /** Return `[field, value]` for all that are set and right. */
  values() {
    const checked = this.views.map((view) => [view.field, view.check()]);
    return checked.filter(([, value]) => value !== undefined);
  }

  get firstWrong() {
    return this.views.find(({ isWrong }) => isWrong);
  }

  /** Say at a field what the service has found wrong with it; false where there is no such field. */
  complain(path, words) {
    const view = this.views.find(({ field }) => path === field.path || path.startsWith(`${field.path}.`));
    view?.complain(words);
    return view !== undefined;
  }

  count() {
    const set = Object.keys(this.typed).length;
    this.details.querySelector(".count").textContent = set ? `${set} set` : "";
  }
}
