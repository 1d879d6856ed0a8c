// The list of pipelines. One that failed to load cannot be chosen, and says why.

import { at, element } from "./elements.js";

export class Picker {
  constructor(onChoose) {
    this.list = at("pipelines");
    this.list.addEventListener("change", ({ target }) => onChoose(target.value));
  }

  show(pipelines, chosen) {
    const hadFocus = this.list.contains(document.activeElement);
    const rows = pipelines.map((each, index) => rowOf(each, index, chosen));
    this.list.replaceChildren(this.list.querySelector("legend"), ...rows);
    if (hadFocus) this.list.querySelector("input:checked")?.focus();
  }
}

function rowOf({ name, description, ready, error }, index, chosen) {
  const id = `pipeline-${index}`; // a name may have blanks, which divide a list of ids
  const radio = element("input", {
    type: "radio",
    name: "pipeline",
    value: name,
    checked: name === chosen,
    disabled: !ready,
    "aria-labelledby": `${id}-name`,
    "aria-describedby": `${id}-words`,
  });
  const words = element("span", { id: `${id}-words`, className: "words" }, description);
  if (error) words.append(element("span", { className: "error" }, error));
  else if (!ready) words.append("loading …");
  const title = element("span", { id: `${id}-name`, className: "name" }, name);
  return element("label", { className: "pipeline" }, radio, title, words);
}
