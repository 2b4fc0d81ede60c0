// Draws the layout on a canvas: only what is in sight, so that thousands of nodes pan and zoom without a stutter.

const canvas = document.getElementById("canvas"), pen = canvas.getContext("2d");
const map = document.getElementById("map"), mapPen = map.getContext("2d");
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif';
const view = { x: 0, y: 0, zoom: 1 };
let drawing = null, selected = null, hovered = null, found = new Set(), colours = {}, queued = false;

const measured = new Map();
function textWidth(text, font) {
  const key = font + text;
  if (!measured.has(key)) { pen.font = font; measured.set(key, pen.measureText(text).width); }
  return measured.get(key);
}
const BOLD = `600 12.5px ${FONT}`, SMALL = `11px ${FONT}`;
const clip = (text, most) => text.length > most ? text.slice(0, most - 1) + "…" : text;

function lines(item) {
  if (item.kind === "group") return [clip(item.name, 34), `${item.count} ${item.count === 1 ? "node" : "nodes"}${item.bytes ? " · " + bytes(item.bytes) : ""}`];
  if (item.kind !== "node") return [clip(item.label, 34), `${item.info.dtype} ${shapeOf(item.info)}`];
  const out = graph.tensors[item.node.outputs.find(Boolean)];
  return [clip(item.label, 34), out && out.shape !== null ? shapeOf(out) : clip(item.node.name, 26)];
}
function measure(item) {
  const [first, second] = lines(item);
  const extra = item.kind === "group" ? 44 : 30;
  return { w: Math.max(74, Math.ceil(Math.max(textWidth(first, BOLD), textWidth(second, SMALL)) + extra)), h: 42 };
}
measure.text = text => textWidth(text, BOLD);

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["page", "surface", "raised", "line", "ink", "soft", "faint", "accent", "accent-soft", "edge", "group", "group-line", "shadow", "found",
    "conv", "matmul", "activation", "norm", "pool", "arith", "shape", "quant", "control", "other", "io"]) colours[name] = style.getPropertyValue("--" + name).trim();
}

function redraw() { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; paint(); }); } }

function paint() {
  const ratio = devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
  if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) { canvas.width = Math.round(wide * ratio); canvas.height = Math.round(high * ratio); }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = colours.page; pen.fillRect(0, 0, wide, high);
  pen.setTransform(ratio * view.zoom, 0, 0, ratio * view.zoom, ratio * view.x, ratio * view.y);
  const sight = [-view.x / view.zoom, -view.y / view.zoom, (wide - view.x) / view.zoom, (high - view.y) / view.zoom];
  const inSight = (left, top, right, bottom) => right >= sight[0] && left <= sight[2] && bottom >= sight[1] && top <= sight[3];
  drawing.groups.forEach(group => { if (inSight(group.left, group.top, group.left + group.w, group.top + group.h)) paintGroup(group); });
  const lit = [];
  pen.lineWidth = Math.max(1.2, .6 / view.zoom); pen.strokeStyle = colours.edge; pen.fillStyle = colours.edge;
  for (const edge of drawing.edges) {
    if (isLit(edge)) { if (inSight(...edge.box)) lit.push(edge); } else if (inSight(...edge.ownBox)) paintEdge(edge, edge.own);
  }
  pen.lineWidth = Math.max(2.2, 1.1 / view.zoom); pen.strokeStyle = colours.accent; pen.fillStyle = colours.accent;
  lit.forEach(edge => paintEdge(edge, edge.points));
  drawing.items.forEach(item => { if (inSight(item.left, item.top, item.left + item.w, item.top + item.h)) paintItem(item); });
  paintMap(sight);
}

const within = (item, group) => { for (let up = item; up; up = up.parent) if (up === group) return true; return false; };
const isLit = edge => selected && edge.links.some(link => within(link.from, selected) !== within(link.to, selected));

function box(left, top, width, height, radius) { pen.beginPath(); pen.roundRect(left, top, width, height, radius); }

function paintGroup(group) {
  box(group.left, group.top, group.w, group.h, 10);
  pen.fillStyle = colours.group; pen.fill();
  pen.strokeStyle = group === selected ? colours.accent : colours["group-line"];
  pen.lineWidth = group === selected ? 2 : 1; pen.stroke();
  if (view.zoom < .25) return;
  pen.font = BOLD; pen.fillStyle = group === hovered ? colours.accent : colours.soft; pen.textBaseline = "middle"; pen.textAlign = "left";
  pen.fillText("▾ " + clip(group.name, 40), group.left + 10, group.top + HEADER / 2 + 1);
}

function paintEdge(edge, p) {
  // Within a layer an edge runs straight, between layers it curves; a part of an edge begins between layers.
  pen.setLineDash(edge.back ? [5, 4] : []);
  pen.beginPath(); pen.moveTo(p[0][0], p[0][1]);
  const straight = p.length % 2;
  for (let at = 1; at < p.length; at += 1) {
    const [x0, y0] = p[at - 1], [x1, y1] = p[at], bend = (y1 - y0) * .5;
    if (at % 2 !== straight) pen.lineTo(x1, y1); else pen.bezierCurveTo(x0, y0 + bend, x1, y1 - bend, x1, y1);
  }
  pen.stroke(); pen.setLineDash([]);
  if (edge.arrow && view.zoom > .3) {
    const [x, y] = p[p.length - 1];
    pen.beginPath(); pen.moveTo(x, y); pen.lineTo(x - 4, y - 7); pen.lineTo(x + 4, y - 7); pen.fill();
  }
}

function paintItem(item) {
  const isGroup = item.kind === "group", isPort = item.kind === "input" || item.kind === "output";
  const colour = isGroup ? colours.accent : isPort ? colours.io : colours[category(item.node.op)];
  const round = isPort ? 21 : 8;
  if (isGroup && view.zoom > .25) { box(item.left + 4, item.top + 4, item.w, item.h, 8); pen.fillStyle = colours.raised; pen.fill(); pen.strokeStyle = colours["group-line"]; pen.lineWidth = 1; pen.stroke(); }
  box(item.left, item.top, item.w, item.h, round);
  pen.fillStyle = item === selected ? colours["accent-soft"] : colours.raised;
  if (view.zoom > .5) { pen.shadowColor = colours.shadow; pen.shadowBlur = 5; pen.shadowOffsetY = 1.5; }
  pen.fill(); pen.shadowColor = "transparent"; pen.shadowBlur = 0; pen.shadowOffsetY = 0;
  const strong = item === selected || item === hovered || found.has(item);
  pen.strokeStyle = item === selected || item === hovered ? colours.accent : found.has(item) ? colours.found : isPort ? colours.io : colours.line;
  pen.lineWidth = strong ? 2 : 1; pen.stroke();
  if (!isPort) { pen.save(); box(item.left, item.top, item.w, item.h, round); pen.clip(); pen.fillStyle = colour; pen.fillRect(item.left, item.top, 5, item.h); if (view.zoom < .25) { pen.globalAlpha = .55; pen.fillRect(item.left, item.top, item.w, item.h); } pen.restore(); }
  if (view.zoom < .25) return;
  const [first, second] = lines(item), x = isPort ? item.cx : item.left + 15;
  pen.textAlign = isPort ? "center" : "left"; pen.textBaseline = "middle";
  pen.font = BOLD; pen.fillStyle = isPort || isGroup ? colours.ink : colour; pen.fillText((isGroup ? "▸ " : "") + first, x, item.top + 14.5);
  pen.font = SMALL; pen.fillStyle = colours.soft; pen.fillText(second, x, item.top + 29.5);
}

let mapScale = 1;
const mapBase = document.createElement("canvas"), basePen = mapBase.getContext("2d");
function sizeMap() {
  // The small map is drawn once for each layout, and copied whenever the view moves.
  mapScale = Math.min(150 / drawing.width, Math.min(260, canvas.clientHeight * .45) / drawing.height);
  const width = Math.max(26, drawing.width * mapScale), height = Math.max(26, drawing.height * mapScale), ratio = devicePixelRatio || 1;
  mapBase.width = map.width = width * ratio; mapBase.height = map.height = height * ratio;
  map.style.width = width + "px"; map.style.height = height + "px";
  basePen.setTransform(ratio * mapScale, 0, 0, ratio * mapScale, ratio * (width - drawing.width * mapScale) / 2, 0);
  basePen.fillStyle = colours.group;
  drawing.groups.forEach(group => basePen.fillRect(group.left, group.top, group.w, group.h));
  drawing.items.forEach(item => {
    basePen.fillStyle = item.kind === "node" ? colours[category(item.node.op)] : item.kind === "group" ? colours.accent : colours.io;
    basePen.fillRect(item.left, item.top, item.w, Math.max(item.h, 1 / mapScale));
  });
}
function paintMap(sight) {
  map.hidden = sight[0] <= 0 && sight[1] <= 0 && sight[2] >= drawing.width && sight[3] >= drawing.height;
  if (map.hidden) return;
  const ratio = devicePixelRatio || 1, left = (map.width / ratio - drawing.width * mapScale) / 2;
  mapPen.setTransform(1, 0, 0, 1, 0, 0); mapPen.clearRect(0, 0, map.width, map.height); mapPen.drawImage(mapBase, 0, 0);
  mapPen.setTransform(ratio * mapScale, 0, 0, ratio * mapScale, ratio * left, 0);
  mapPen.strokeStyle = colours.accent; mapPen.lineWidth = 1.5 / mapScale;
  mapPen.strokeRect(sight[0], sight[1], sight[2] - sight[0], sight[3] - sight[1]);
}
