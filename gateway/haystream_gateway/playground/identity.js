// Who asks, where the service wants to know: a token, sent with every call, and kept for as long as the tab is open.

import { identify } from "./api.js";
import { at } from "./elements.js";

const KEY = "haystream.token"; // of this tab's storage alone, which no other tab sees and which ends with it

const UNSENDABLE = /[^\x21-\x7e]/g; // blanks and line ends, as they come along when something is pasted

export class Identity {
  /** `onChange` is called when there is another token, or none any more. */
  constructor(onChange) {
    this.details = at("identity");
    this.field = at("token");
    this.field.value = kept();
    this.field.addEventListener("change", () => (this.take(), keep(this.field.value), onChange()));
    at("identity").hidden = this.field.value === "";
    this.take();
  }

  /** Return the field for what a refusal misses, to be shown; nothing where it is not about who asks. */
  complain({ status }) {
    if (status !== 401) return undefined;
    this.details.hidden = false;
    return { element: this.field, control: this.field };
  }

  take() {
    this.field.value = this.field.value.replace(UNSENDABLE, "");
    identify(this.field.value);
    this.details.querySelector(".count").textContent = this.field.value ? "set" : "";
  }
}

function kept() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // storage that is forbidden
  }
}

function keep(token) {
  try {
    if (token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  } catch {
    // forbidden: then it is for this page alone
  }
}
