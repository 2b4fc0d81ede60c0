// What the reader does: pan, zoom, open, close, select, search.

const stage = document.getElementById("stage"), tip = document.getElementById("tip");
const query = document.getElementById("query"), results = document.getElementById("results");

function relayout() { drawing = layoutAll(measure); sizeMap(); showTree(); redraw(); }
function toggle(group) {
  // The group's corner stays where it is on the screen.
  const before = [group.left * view.zoom + view.x, group.top * view.zoom + view.y];
  group.open = !group.open;
  relayout();
  view.x = before[0] - group.left * view.zoom; view.y = before[1] - group.top * view.zoom;
  showPanel();
}
function setAll(open) { groups.forEach(group => { group.open = open; }); relayout(); start(); }
function select(item) { selected = item; showPanel(); redraw(); }
function reveal(item) {
  let changed = false;
  for (let group = item.parent; group && group !== root; group = group.parent) if (!group.open) { group.open = true; changed = true; }
  if (changed) relayout();
  select(item);
  view.zoom = Math.max(view.zoom, .8);
  centre(item.left + item.w / 2, item.top + Math.min(item.h, 200) / 2);
}
function centre(x, y) { view.x = canvas.clientWidth / 2 - x * view.zoom; view.y = canvas.clientHeight / 2 - y * view.zoom; redraw(); }
function fit() {
  view.zoom = Math.min(1.4, (canvas.clientWidth - 40) / drawing.width, (canvas.clientHeight - 40) / drawing.height);
  centre(drawing.width / 2, drawing.height / 2);
}
function start() {
  // As wide as the stage, but never too small to be read; from the top.
  view.zoom = Math.min(1, Math.max(.8, (canvas.clientWidth - 60) / drawing.width));
  const first = drawing.items.reduce((best, item) => !best || item.top < best.top ? item : best, null);
  view.y = 20; view.x = drawing.width * view.zoom < canvas.clientWidth || !first ? (canvas.clientWidth - drawing.width * view.zoom) / 2 : canvas.clientWidth / 2 - first.cx * view.zoom;
  redraw();
}

function at(event) {
  const frame = canvas.getBoundingClientRect(), x = (event.clientX - frame.left - view.x) / view.zoom, y = (event.clientY - frame.top - view.y) / view.zoom;
  const inside = item => x >= item.left && x <= item.left + item.w && y >= item.top && y <= item.top + item.h;
  return drawing.items.find(inside) || [...drawing.groups].reverse().find(group => inside(group) && y <= group.top + HEADER) || null;
}
let drag = null;
canvas.addEventListener("pointerdown", event => { drag = { x: event.clientX, y: event.clientY, far: false }; canvas.setPointerCapture(event.pointerId); canvas.classList.add("dragging"); tip.hidden = true; });
canvas.addEventListener("pointermove", event => {
  if (drag) {
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    if (drag.far || Math.hypot(dx, dy) > 4) { drag.far = true; view.x += dx; view.y += dy; drag.x = event.clientX; drag.y = event.clientY; redraw(); }
    return;
  }
  const item = at(event);
  if (item !== hovered) { hovered = item; canvas.classList.toggle("over", Boolean(item)); redraw(); }
  showTip(event, item);
});
canvas.addEventListener("pointerup", event => {
  const clicked = drag && !drag.far; drag = null; canvas.classList.remove("dragging");
  if (!clicked) return;
  const item = at(event);
  if (item && item.kind === "group" && (item === selected || item.open)) { selected = item; toggle(item); } else select(item);
});
canvas.addEventListener("pointerleave", () => { hovered = null; tip.hidden = true; redraw(); });
canvas.addEventListener("dblclick", event => { const item = at(event); if (item && item.kind === "group" && !item.open) toggle(item); });
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  const frame = canvas.getBoundingClientRect(), x = event.clientX - frame.left, y = event.clientY - frame.top;
  if (event.ctrlKey || event.metaKey || !event.shiftKey && Math.abs(event.deltaX) < Math.abs(event.deltaY)) zoomAt(x, y, Math.exp(-event.deltaY * (event.deltaMode ? .05 : .0015)));
  else { view.x -= event.deltaX || event.deltaY; redraw(); }
}, { passive: false });
function zoomAt(x, y, factor) {
  const zoom = Math.min(3, Math.max(.02, view.zoom * factor));
  view.x = x - (x - view.x) * zoom / view.zoom; view.y = y - (y - view.y) * zoom / view.zoom; view.zoom = zoom;
  redraw();
}
function showTip(event, item) {
  tip.hidden = !item;
  if (!item) return;
  const full = item.kind === "node" ? item.node.name : item.name || item.label;
  tip.replaceChildren(make("b", item.kind === "node" ? item.node.op : item.name || item.label), make("span", item.kind === "node" ? full : item.kind === "group" ? `${item.count} nodes; click twice to ${item.open ? "close" : "open"}` : `${item.info.dtype} ${shapeOf(item.info)}`));
  const frame = stage.getBoundingClientRect(), x = event.clientX - frame.left + 14, y = event.clientY - frame.top + 14;
  tip.style.left = Math.min(x, frame.width - tip.offsetWidth - 8) + "px"; tip.style.top = Math.min(y, frame.height - tip.offsetHeight - 8) + "px";
}
function mapTo(event) {
  const frame = map.getBoundingClientRect(), left = (frame.width - drawing.width * mapScale) / 2;
  centre((event.clientX - frame.left - left) / mapScale, (event.clientY - frame.top) / mapScale);
}
map.addEventListener("pointerdown", event => { map.setPointerCapture(event.pointerId); mapTo(event); });
map.addEventListener("pointermove", event => { if (event.buttons) mapTo(event); });

function matches(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const hay = item => item.kind === "group" ? item.name : item.kind === "node" ? [item.node.op, item.node.name, pathOf(item), ...item.node.inputs, ...item.node.outputs].join("\n") : item.label;
  const exact = text.trim().toLowerCase();
  const hits = [...groups, ...leaves].filter(item => { const hayText = hay(item).toLowerCase(); return words.every(word => hayText.includes(word)); });
  const rank = item => item.kind === "node" && item.node.op.toLowerCase() === exact ? 0 : (item.name || item.label).toLowerCase() === exact || item.node && item.node.name.toLowerCase() === exact ? 0 : item.kind === "group" ? 2 : 1;
  return hits.map((item, order) => [rank(item), order, item]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(entry => entry[2]);
}
let active = -1;
function search(text, exactOp) {
  if (exactOp) query.value = text;
  const hits = matches(text);
  found = new Set(hits.map(shownAs)); active = -1;
  results.hidden = !text.trim();
  results.replaceChildren(...hits.slice(0, 200).map(item => {
    const entry = make("li"), button = make("button", item.kind === "node" ? item.node.op : item.kind === "group" ? item.name : item.label);
    const where = [item.kind === "node" ? item.node.name : item.kind === "group" ? "module" : item.kind, pathOf(item)].filter(Boolean).join(" · ");
    button.append(make("small", where)); button.onclick = () => { results.hidden = true; reveal(item); };
    entry.append(button); return entry;
  }));
  if (!hits.length) results.append(make("li", "Nothing of that name.", "none"));
  if (hits.length > 200) results.append(make("li", `and ${hits.length - 200} more`, "none"));
  if (exactOp) query.focus();
  redraw();
}
query.addEventListener("input", () => search(query.value));
query.addEventListener("focus", () => { if (query.value.trim()) results.hidden = false; });
query.addEventListener("keydown", event => {
  const buttons = [...results.querySelectorAll("button")];
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault(); active = Math.min(buttons.length - 1, Math.max(0, active + (event.key === "ArrowDown" ? 1 : -1)));
    buttons.forEach((button, index) => button.classList.toggle("active", index === active));
    if (buttons[active]) buttons[active].scrollIntoView({ block: "nearest" });
  } else if (event.key === "Enter" && buttons.length) buttons[Math.max(0, active)].click();
  else if (event.key === "Escape") { query.value = ""; search(""); query.blur(); }
});
document.addEventListener("pointerdown", event => { if (!event.target.closest(".search, .bar")) results.hidden = true; });

const keys = { "/": () => query.focus(), f: fit, e: () => setAll(true), c: () => setAll(false), t: flip, Escape: () => select(null), "+": () => zoomAt(canvas.clientWidth / 2, canvas.clientHeight / 2, 1.25), "-": () => zoomAt(canvas.clientWidth / 2, canvas.clientHeight / 2, .8) };
document.addEventListener("keydown", event => {
  if (event.target === query || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
  event.preventDefault(); keys[event.key]();
});
const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(name) { document.documentElement.dataset.theme = name; readColours(); if (drawing) { sizeMap(); redraw(); } }
function flip() { setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); }
dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
document.getElementById("fit").onclick = fit;
document.getElementById("open-all").onclick = () => setAll(true);
document.getElementById("close-all").onclick = () => setAll(false);
document.getElementById("theme").onclick = flip;
document.getElementById("title").textContent = graph.name || "Graph";
document.getElementById("subtitle").textContent = `${graph.nodes.length.toLocaleString("en")} nodes · ${short(graph.parameters)} parameters`;

setTheme(dark.matches ? "dark" : "light");
openSome(graph.nodes.length <= 150 ? 400 : 70);
relayout(); start(); showPanel();
new ResizeObserver(() => { sizeMap(); redraw(); }).observe(stage);
