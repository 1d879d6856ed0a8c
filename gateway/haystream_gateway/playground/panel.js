// The panel: on a wide screen it is beside the conversation, on a narrow one it takes its place for a while.

import { at } from "./elements.js";

/** Whether it hides the conversation. */
export const isOpen = () => at("close-panel").checkVisibility();

export function open() {
  set(true);
}

export function close() {
  set(false);
  at("open-panel").focus();
}

/** Take the reader to a field, whatever it is folded into. */
export function showField({ element, control }) {
  open();
  element.closest("details").open = true;
  control.focus();
}

let place = 0; // of the reader in the conversation

function set(is) {
  if (is) place = scrollY;
  document.body.classList.toggle("panel-open", is);
  at("open-panel").setAttribute("aria-expanded", String(is));
  if (isOpen() || !is) scrollTo({ top: is ? 0 : place, behavior: "instant" });
}

at("open-panel").addEventListener("click", () => (isOpen() ? close() : open()));
at("close-panel").addEventListener("click", close);
