// Puts the nodes of a graph into layers, so that its arrows point down and cross seldom (Sugiyama's way, in small).

const SWEEPS = 4; // of ordering; graphs of this size are settled by then

/**
 * Return `{rows, paths}`. Each row has places `{id, isBend}` from left to right: nodes, and the bends where an arrow
 * passes a row on its way. Each path is `{from, to, places, isBack}`; those that lead back up have no bends.
 */
export function layered({ nodes, edges }) {
  const forward = withoutCycles(nodes, edges);
  const depths = depthsOf(nodes, forward);
  const rows = Array.from({ length: Math.max(0, ...depths.values()) + 1 }, () => []);
  const places = new Map(nodes.map(({ id }) => [id, { id, isBend: false, above: [], below: [] }]));
  for (const { id } of nodes) rows[depths.get(id)].push(places.get(id));
  const paths = forward.map((edge) => ({ ...edge, places: route(edge, depths, places, rows), isBack: false }));
  order(rows);
  const back = edges.filter((edge) => !forward.includes(edge));
  const returns = back.map((edge) => ({ ...edge, places: [places.get(edge.from), places.get(edge.to)], isBack: true }));
  return { rows, paths: [...paths, ...returns] };
}

/** Return the edges that do not close a loop: an arrow to a node that is still being walked from does. */
function withoutCycles(nodes, edges) {
  const state = new Map();
  const forward = new Set();
  const walk = (id) => {
    state.set(id, "walking");
    for (const edge of edges.filter(({ from }) => from === id)) {
      if (state.get(edge.to) === "walking") continue;
      forward.add(edge);
      if (!state.has(edge.to)) walk(edge.to);
    }
    state.set(id, "done");
  };
  const isEntry = ({ id }) => !edges.some(({ to }) => to === id);
  for (const { id } of [...nodes.filter(isEntry), ...nodes]) if (!state.has(id)) walk(id);
  return edges.filter((edge) => forward.has(edge));
}

/** Each node is one below the lowest that leads to it; one that nothing leads to is right above what it leads to. */
function depthsOf(nodes, edges) {
  const depths = new Map();
  const depthOf = (id) => {
    if (!depths.has(id)) {
      const before = edges.filter(({ to }) => to === id).map(({ from }) => depthOf(from) + 1);
      depths.set(id, Math.max(0, ...before));
    }
    return depths.get(id);
  };
  for (const { id } of nodes) depthOf(id);
  for (const { id } of nodes) {
    const after = edges.filter(({ from }) => from === id).map(({ to }) => depths.get(to) - 1);
    if (after.length && !edges.some(({ to }) => to === id)) depths.set(id, Math.min(...after));
  }
  return depths;
}

/** Return the places of an edge, with a bend in each row between its ends. */
function route({ from, to }, depths, places, rows) {
  const path = [places.get(from)];
  for (let depth = depths.get(from) + 1; depth < depths.get(to); depth++) {
    const bend = { id: `${from}-${to}-${depth}`, isBend: true, above: [], below: [] };
    rows[depth].push(bend);
    path.push(bend);
  }
  path.push(places.get(to));
  for (let index = 1; index < path.length; index++) {
    path[index].above.push(path[index - 1]);
    path[index - 1].below.push(path[index]);
  }
  return path;
}

/** Sort each row by where its neighbours are, downwards and upwards in turn. */
function order(rows) {
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const isDownwards = sweep % 2 === 0;
    for (const row of isDownwards ? rows : rows.toReversed()) {
      rows.forEach((each) => each.forEach((place, index) => (place.rank = index - each.length / 2)));
      const wanted = new Map(row.map((place) => [place, mean(isDownwards ? place.above : place.below) ?? place.rank]));
      row.sort((one, other) => wanted.get(one) - wanted.get(other));
    }
  }
}

function mean(places) {
  return places.length ? places.reduce((sum, { rank }) => sum + rank, 0) / places.length : undefined;
}
