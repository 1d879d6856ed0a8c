// What a component has found: the best on top, each with its score, and its whole text one step away.

import { element } from "./elements.js";
import { asText } from "./parts.js";

const TITLES = ["title", "name", "file_path", "source", "url"]; // what Haystack's converters and people call a document

export class DocumentsView {
  constructor({ component, documents }) {
    const best = Math.max(0, ...documents.map(({ score }) => score).filter(Number.isFinite));
    this.element = element(
      "details",
      { className: "documents", open: true },
      element(
        "summary",
        {},
        documents.length === 1 ? "1 document " : `${documents.length} documents `,
        element("span", { className: "note" }, `from ${component}`),
      ),
      element("ol", {}, ...documents.map((document) => itemOf(document, best))),
    );
  }

  show() {}
}

function itemOf({ id, content, score, meta, truncated }, best) {
  const title = TITLES.map((name) => meta[name]).find((value) => typeof value === "string" && value) ?? shortened(id);
  return element(
    "li",
    {},
    element(
      "details",
      {},
      element(
        "summary",
        {},
        element("span", { className: "title" }, title),
        ...(Number.isFinite(score) ? [scoreOf(score, best)] : []), // Infinity and NaN come as text, if at all
        element("span", { className: "excerpt" }, content),
      ),
      element("p", { className: "content" }, content, truncated ? " … (cut)" : ""),
      element("dl", { className: "meta" }, ...Object.entries({ id, ...meta }).map(rowOf)),
    ),
  );
}

/** The bar is drawn by the share of the best score: what scores mean differs from one retriever to another. */
function scoreOf(score, best) {
  const bar = element("span", { className: "bar", ariaHidden: "true" });
  bar.style.setProperty("--share", best > 0 ? Math.max(0, score / best) : 0);
  const label = element("span", { className: "unseen" }, "score ");
  const number = element("span", { className: "number" }, score.toFixed(2));
  return element("span", { className: "score" }, bar, label, number);
}

const rowOf = ([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, asText(value)));

const shortened = (id) => (id.length > 24 ? `${id.slice(0, 12)}…` : id); // Haystack's own ids are hashes
