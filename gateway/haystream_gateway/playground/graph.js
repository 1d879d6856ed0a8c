// Draws a pipeline's graph as SVG, from top to bottom, and shows which component is at work.

import { layered } from "./layers.js";
import { flowchartOf } from "./mermaid.js";

const NODE_HEIGHT = 44;
const BEND_WIDTH = 28;
const GAP = { across: 16, down: 30 };
const MARGIN = 2; // for the lines' width
const LETTER = { name: 7.6, kind: 6.2 }; // pixels, of the two sizes in panel.css
const PADDING = 28;
const TIP = 5; // of an arrow
const LOOP = 32; // how far an arrow that leads back swings out

export class Graph {
  constructor(mermaid) {
    const chart = flowchartOf(mermaid);
    const { rows, paths } = layered(chart);
    const width = Math.max(0, ...chart.nodes.map(widthOf));
    const size = placed(rows, width);
    this.boxes = new Map(chart.nodes.map((node) => [node.name, boxOf(node, placeOf(rows, node), width)]));
    const arrows = paths.map((path) => arrowOf(path, width));
    const right = size.width + (paths.some(({ isBack }) => isBack) ? LOOP : 0);
    const picture = { viewBox: `0 0 ${right} ${size.height}`, width: right, role: "img" };
    this.element = svg("svg", { ...picture, "aria-label": wordsOf(chart) }, tip(), ...arrows, ...this.boxes.values());
  }

  /** Mark a component, and no other; with none all are at rest. */
  mark(component) {
    for (const [name, box] of this.boxes) box.classList.toggle("at-work", name === component);
  }
}

/** Give every place its middle, each row centred. All nodes are equally wide, so that chains stand straight. */
function placed(rows, width) {
  const widthAt = (place) => (place.isBend ? BEND_WIDTH : width);
  const widthOfRow = (row) => row.reduce((sum, place) => sum + widthAt(place), (row.length - 1) * GAP.across);
  const total = Math.max(...rows.map(widthOfRow));
  rows.forEach((row, depth) => {
    let left = MARGIN + (total - widthOfRow(row)) / 2;
    for (const place of row) {
      place.x = left + widthAt(place) / 2;
      place.y = MARGIN + NODE_HEIGHT / 2 + depth * (NODE_HEIGHT + GAP.down);
      left += widthAt(place) + GAP.across;
    }
  });
  return { width: total + 2 * MARGIN, height: rows.length * (NODE_HEIGHT + GAP.down) - GAP.down + 2 * MARGIN };
}

const placeOf = (rows, node) => rows.flat().find(({ id }) => id === node.id);

const widthOf = ({ name, kind }) => Math.max(name.length * LETTER.name, kind.length * LETTER.kind) + PADDING;

function boxOf({ name, kind }, { x, y }, width) {
  const frame = { x: x - width / 2, y: y - NODE_HEIGHT / 2, width, height: NODE_HEIGHT, rx: 9 };
  return svg(
    "g",
    { class: "node" },
    svg("rect", frame),
    svg("text", { x, y: y - 3, class: "name" }, name),
    svg("text", { x, y: y + 13, class: "kind" }, kind),
  );
}

function arrowOf(path, width) {
  return svg("path", { class: "arrow", d: lineOf(path, width), "marker-end": "url(#tip)" });
}

/** An arrow leaves a node's foot and ends at another's head; one that leads back goes around on the right. */
function lineOf({ places, isBack }, width) {
  const [start, end] = [places[0], places.at(-1)];
  if (isBack) {
    const side = Math.max(start.x, end.x) + width / 2;
    const [from, to] = [start.x + width / 2, end.x + width / 2 + TIP];
    return `M ${from} ${start.y} C ${side + LOOP} ${start.y} ${side + LOOP} ${end.y} ${to} ${end.y}`;
  }
  const stops = places.map(stopOf);
  const steps = stops.slice(1).map((to, index) => `${curve(stops[index], to)} ${to.isBend ? `V ${to.foot}` : ""}`);
  return `M ${stops[0].x} ${stops[0].foot} ${steps.join(" ")}`;
}

function stopOf({ x, y, isBend }) {
  return { x, isBend, head: y - NODE_HEIGHT / 2 - (isBend ? 0 : TIP), foot: y + NODE_HEIGHT / 2 };
}

/** All bending is done between the rows, where no node is in the way. */
function curve({ x, foot }, to) {
  const middle = (foot + to.head) / 2;
  return `C ${x} ${middle} ${to.x} ${middle} ${to.x} ${to.head}`;
}

function tip() {
  const shape = { id: "tip", viewBox: "0 0 8 8", refX: 4, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" };
  return svg("defs", {}, svg("marker", shape, svg("path", { class: "tip", d: "M 0 0 L 8 4 L 0 8 z" })));
}

function wordsOf({ nodes, edges }) {
  const names = new Map(nodes.map(({ id, name }) => [id, name]));
  const arrows = edges.map(({ from, to }) => `${names.get(from)} feeds ${names.get(to)}`);
  return `Components: ${nodes.map(({ name, kind }) => `${name}, a ${kind}`).join("; ")}. ${arrows.join("; ")}`;
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
