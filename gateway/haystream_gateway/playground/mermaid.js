// Reads the flowcharts that the service writes: nodes of `name (Kind)` and plain arrows, a line each.

const NODE = /^\s*(\w+)\["(.*) \((.*)\)"\]$/;
const ARROW = /^\s*(\w+) --> (\w+)$/;

/** Return `{nodes: [{id, name, kind}], edges: [{from, to}]}`; lines of other kinds are left out. */
export function flowchartOf(text) {
  const nodes = [];
  const edges = [];
  for (const line of text.split("\n")) {
    const node = NODE.exec(line);
    const arrow = ARROW.exec(line);
    if (node) nodes.push({ id: node[1], name: node[2], kind: node[3] });
    if (arrow) edges.push({ from: arrow[1], to: arrow[2] });
  }
  return { nodes, edges };
}
