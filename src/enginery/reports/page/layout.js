// A layered drawing, from the top down, of modules in modules: each open module is laid out by itself, and an edge that
// crosses its border does so through a port on that border. The steps are those of Sugiyama, Tagawa and Toda (1981):
// break cycles, assign layers, order within layers by barycentres, place by isotonic regression.

const GAP_X = 22, GAP_Y = 34, PAD = 18, HEADER = 26, THIN = 5;

function layoutAll(measure) {
  const levels = new Map();
  const level = group => {
    if (!levels.has(group)) levels.set(group, { edges: new Map(), ins: new Map(), outs: new Map() });
    return levels.get(group);
  };
  links.forEach(link => lift(link, level));
  place(root, level, measure);
  const drawing = { groups: [], items: [], edges: [], width: root.w, height: root.h };
  settle(root, 0, 0, level, drawing);
  return drawing;
}

function shownAs(item) {
  let shown = item;
  for (let group = item.parent; group; group = group.parent) if (!group.open) shown = group;
  return shown;
}

function lift(link, level) {
  const from = shownAs(link.from), to = shownAs(link.to);
  if (from === to) return;
  const above = new Set();
  for (let group = from.parent; group; group = group.parent) above.add(group);
  let meeting = to.parent;
  while (!above.has(meeting)) meeting = meeting.parent;
  const join = (group, a, b) => {
    const key = a.id + ">" + b.id + ">" + from.id;
    const edges = level(group).edges;
    if (!edges.has(key)) edges.set(key, { a, b, source: from, links: [] });
    edges.get(key).links.push(link);
  };
  const port = (group, side) => {
    const ports = level(group)[side];
    if (!ports.has(from.id)) ports.set(from.id, { kind: "port", id: side + from.id, side, order: side === "ins" ? -1 : 1e9, w: THIN, h: 0 });
    return ports.get(from.id);
  };
  let a = from, b = to;
  for (; a.parent !== meeting; a = a.parent) join(a.parent, a, port(a.parent, "outs"));
  for (; b.parent !== meeting; b = b.parent) join(b.parent, port(b.parent, "ins"), b);
  join(meeting, a, b);
}

function place(group, level, measure) {
  for (const item of group.items) {
    if (item.kind === "group" && item.open) place(item, level, measure);
    else Object.assign(item, measure(item));
  }
  const { edges, ins, outs } = level(group);
  const items = [...ins.values(), ...group.items, ...outs.values()];
  const forward = acyclic(items, [...edges.values()]);
  const layerOf = assignLayers(items, forward, ins.size > 0);
  const { layers, segments } = stretch(items, forward, layerOf);
  order(layers, segments);
  const ends = (end, source, side) => end.kind === "group" && end.open ? level(end)[side].get(source.id).x - end.w / 2 : 0;
  setX(layers, segments, ends);
  setY(group, layers);
  const isRoot = group === root;
  let low = Infinity, high = -Infinity;
  layers.flat().forEach(item => { low = Math.min(low, item.x - item.w / 2); high = Math.max(high, item.x + item.w / 2); });
  if (!isFinite(low)) { low = 0; high = 0; }
  const least = isRoot ? 0 : measure.text(group.name) + 60;
  const width = Math.max(high - low + 2 * PAD, least);
  const shift = (width - (high - low)) / 2 - low;
  layers.flat().forEach(item => { item.x += shift; });
  group.w = width;
  group.layers = layers;
  group.forward = forward;
}

function acyclic(items, edges) {
  // A module may both feed a node and be fed by it; such an edge is drawn, but does not decide layers.
  const out = new Map(items.map(item => [item, []]));
  edges.forEach(edge => out.get(edge.a).push(edge));
  const state = new Map();
  for (const start of [...items].sort((a, b) => a.order - b.order)) {
    if (state.has(start)) continue;
    const stack = [[start, 0]];
    state.set(start, 1);
    while (stack.length) {
      const top = stack[stack.length - 1], next = out.get(top[0])[top[1]++];
      if (!next) { state.set(top[0], 2); stack.pop(); continue; }
      next.back = state.get(next.b) === 1;
      if (!state.has(next.b)) { state.set(next.b, 1); stack.push([next.b, 0]); }
    }
  }
  return edges;
}

function assignLayers(items, edges, hasPorts) {
  const layer = new Map(items.map(item => [item, 0])), waits = new Map(items.map(item => [item, 0]));
  const out = new Map(items.map(item => [item, []]));
  const used = edges.filter(edge => !edge.back);
  used.forEach(edge => { out.get(edge.a).push(edge.b); waits.set(edge.b, waits.get(edge.b) + 1); });
  items.forEach(item => { if (hasPorts && item.side !== "ins") layer.set(item, 1); });
  const ready = items.filter(item => waits.get(item) === 0), done = [];
  while (ready.length) {
    const item = ready.pop();
    done.push(item);
    for (const next of out.get(item)) {
      layer.set(next, Math.max(layer.get(next), layer.get(item) + 1));
      waits.set(next, waits.get(next) - 1);
      if (waits.get(next) === 0) ready.push(next);
    }
  }
  // What nothing feeds stands just above what it feeds.
  const fed = new Set(used.map(edge => edge.b));
  for (const item of done.reverse()) {
    const below = out.get(item);
    if (!fed.has(item) && item.side !== "ins" && below.length) layer.set(item, Math.min(...below.map(next => layer.get(next))) - 1);
  }
  const last = Math.max(0, ...items.filter(item => item.side !== "outs").map(item => layer.get(item)));
  items.forEach(item => { if (item.side === "outs") layer.set(item, last + 1); });
  return layer;
}

function stretch(items, edges, layerOf) {
  // Edges over several layers pass each on a thin stand-in; those of one source share theirs, like a bus.
  const layers = [];
  const put = (item, at) => { (layers[at] = layers[at] || []).push(item); item.layer = at; };
  items.forEach(item => put(item, layerOf.get(item)));
  const buses = new Map(), segments = [];
  for (const edge of edges) {
    if (edge.back) continue;
    const from = layerOf.get(edge.a), to = layerOf.get(edge.b);
    const key = edge.a.id + ":" + edge.source.id;
    if (!buses.has(key)) buses.set(key, []);
    const bus = buses.get(key);
    edge.way = [];
    for (let at = from + 1; at < to; at += 1) {
      if (!bus[at]) {
        bus[at] = { kind: "bend", id: key + "@" + at, order: edge.b.order, w: THIN, h: 0 };
        put(bus[at], at);
        const above = at === from + 1 ? edge.a : bus[at - 1];
        segments.push({ a: above, b: bus[at], source: edge.source });
      }
      edge.way.push(bus[at]);
    }
    segments.push({ a: to - from > 1 ? bus[to - 1] : edge.a, b: edge.b, source: edge.source });
  }
  for (let at = 0; at < layers.length; at += 1) layers[at] = layers[at] || [];
  return { layers, segments };
}

function order(layers, segments) {
  const above = new Map(), below = new Map();
  segments.forEach(({ a, b }) => {
    below.set(a, [...(below.get(a) || []), b]);
    above.set(b, [...(above.get(b) || []), a]);
  });
  const number = list => list.forEach((item, at) => { item.at = at; });
  layers.forEach(list => { list.sort((a, b) => a.order - b.order); number(list); });
  const sweep = (list, near) => {
    list.forEach(item => {
      const others = near.get(item);
      item.wish = others ? others.reduce((sum, other) => sum + other.at, 0) / others.length : item.at;
    });
    list.sort((a, b) => a.wish - b.wish || a.at - b.at);
    number(list);
  };
  const crossings = () => {
    let total = 0;
    for (const list of layers) {
      const ends = [];
      list.forEach(item => (below.get(item) || []).map(other => other.at).sort((a, b) => a - b).forEach(at => ends.push(at)));
      for (let i = 0; i < ends.length; i += 1) for (let j = i + 1; j < ends.length; j += 1) if (ends[i] > ends[j]) total += 1;
    }
    return total;
  };
  const countable = Math.max(0, ...layers.map(list => list.length)) < 400;
  let best = countable ? crossings() : Infinity, kept = layers.map(list => [...list]);
  for (let round = 0; round < 8 && best > 0; round += 1) {
    for (let at = 1; at < layers.length; at += 1) sweep(layers[at], above);
    for (let at = layers.length - 2; at >= 0; at -= 1) sweep(layers[at], below);
    const now = countable ? crossings() : -round;
    if (now < best) { best = now; kept = layers.map(list => [...list]); }
  }
  layers.forEach((list, at) => { list.splice(0, list.length, ...kept[at]); number(list); });
}

function setX(layers, segments, ends) {
  const above = new Map(), below = new Map();
  // Long edges want to be straight; what nothing feeds (a constant) follows what it feeds, and does not pull at it.
  const fed = new Set(segments.map(segment => segment.b));
  const weight = (a, b) => a.kind === "node" && !fed.has(a) ? .05 : (a.kind === "bend" ? 3 : 1) * (b.kind === "bend" ? 3 : 1);
  segments.forEach(({ a, b, source }) => {
    const from = ends(a, source, "outs"), to = ends(b, source, "ins"), heavy = weight(a, b);
    below.set(a, [...(below.get(a) || []), [b, to - from, heavy]]);
    above.set(b, [...(above.get(b) || []), [a, from - to, heavy]]);
  });
  layers.forEach(list => { let x = 0; list.forEach(item => { item.x = x + item.w / 2; x += item.w + GAP_X; }); });
  layers.forEach(list => { const mid = list.length ? (list[0].x + list[list.length - 1].x) / 2 : 0; list.forEach(item => { item.x -= mid; }); });
  const sweep = (list, nears) => {
    const wishes = list.map(item => {
      const others = nears.flatMap(near => near.get(item) || []);
      const heavy = others.reduce((sum, [, , one]) => sum + one, 0);
      return heavy ? [others.reduce((sum, [other, shift, one]) => sum + one * (other.x + shift), 0) / heavy, heavy] : [item.x, .05];
    });
    spread(list, wishes);
  };
  for (let round = 0; round < 10; round += 1) {
    const both = round >= 6;
    for (let at = 1; at < layers.length; at += 1) sweep(layers[at], both ? [above, below] : [above]);
    for (let at = layers.length - 2; at >= 0; at -= 1) sweep(layers[at], both ? [above, below] : [below]);
  }
  // Last from the top down, so that chains come out straight; then what nothing feeds moves to what it feeds.
  for (let at = 1; at < layers.length; at += 1) sweep(layers[at], [above]);
  for (const list of layers) {
    spread(list, list.map(item => {
      const others = fed.has(item) ? [] : below.get(item) || [];
      return others.length ? [others.reduce((sum, [other, shift]) => sum + other.x + shift, 0) / others.length, .01] : [item.x, 1];
    }));
  }
}

function spread(list, wishes) {
  // Least squares under the order and the gaps: pool adjacent violators.
  const offsets = [];
  let offset = 0;
  list.forEach((item, at) => {
    if (at > 0) offset += (list[at - 1].w + item.w) / 2 + (list[at - 1].kind === item.kind && item.kind === "bend" ? 10 : GAP_X);
    offsets.push(offset);
  });
  const pools = [];
  list.forEach((item, at) => {
    pools.push({ mean: wishes[at][0] - offsets[at], weight: wishes[at][1], size: 1 });
    while (pools.length > 1 && pools[pools.length - 2].mean > pools[pools.length - 1].mean) {
      const b = pools.pop(), a = pools.pop(), weight = a.weight + b.weight;
      pools.push({ mean: (a.mean * a.weight + b.mean * b.weight) / weight, weight, size: a.size + b.size });
    }
  });
  let at = 0;
  for (const pool of pools) for (let k = 0; k < pool.size; k += 1, at += 1) list[at].x = pool.mean + offsets[at];
}

function setY(group, layers) {
  const inner = group !== root;
  let y = inner ? 0 : PAD;
  group.bands = layers.map((list, at) => {
    const ports = list.some(item => item.kind === "port");
    const height = ports ? 0 : Math.max(THIN, ...list.map(item => item.h));
    if (inner && !ports && at === 0) y += HEADER + PAD / 2;
    const top = y;
    list.forEach(item => { item.y = top + (height - item.h) / 2; });
    // Wide layers need room for their curves to turn.
    const wide = list.length ? Math.min(60, Math.abs(list[list.length - 1].x - list[0].x) / 14) : 0;
    y += height + (ports ? HEADER : GAP_Y + wide);
    return { top, bottom: top + height };
  });
  const last = layers[layers.length - 1];
  const endsInPorts = last && last.some(item => item.kind === "port" && item.side === "outs");
  group.h = endsInPorts ? group.bands[group.bands.length - 1].bottom : y - GAP_Y + PAD;
  if (group.h < HEADER) group.h = HEADER + PAD;
}

function settle(group, left, top, level, drawing) {
  group.left = left; group.top = top;
  if (group !== root) drawing.groups.push(group);
  for (const item of group.items) {
    item.cx = left + item.x; item.left = item.cx - item.w / 2; item.top = top + item.y;
    if (item.kind === "group" && item.open) settle(item, item.left, item.top, level, drawing);
    else drawing.items.push(item);
  }
  for (const edge of group.forward) drawing.edges.push(route(edge, group, left, top, level));
}

function route(edge, group, left, top, level) {
  const end = (item, side) => left + (item.kind === "group" && item.open ? item.x - item.w / 2 + level(item)[side].get(edge.source.id).x : item.x);
  const ax = end(edge.a, "outs"), bx = end(edge.b, "ins");
  const band = item => group.bands[item.layer];
  const points = [[ax, top + edge.a.y + edge.a.h], [ax, top + band(edge.a).bottom]];
  if (!edge.back) edge.way.forEach(bend => points.push([left + bend.x, top + band(bend).top], [left + bend.x, top + band(bend).bottom]));
  points.push([bx, top + band(edge.b).top], [bx, top + edge.b.y]);
  // Edges of one source share a bus; each draws only what no edge before it has drawn, unless it is lit as a whole.
  let from = 0;
  if (!edge.back) edge.way.forEach((bend, at) => { if (bend.drawn) from = 2 * at + 2; bend.drawn = true; });
  const own = points.slice(from === 0 ? 0 : from + 1);
  const arrow = edge.b.kind !== "port" && !(edge.b.kind === "group" && edge.b.open);
  return { points, own, links: edge.links, back: edge.back, arrow, box: around(points), ownBox: around(own) };
}

function around(points) {
  const xs = points.map(p => p[0]), ys = points.map(p => p[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}
