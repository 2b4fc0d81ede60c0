// The panels beside the drawing. Every text of the model goes in as text, never as markup.

const panel = document.getElementById("panel");
function make(tag, text, name) { const element = document.createElement(tag); if (text !== undefined) element.textContent = text; if (name) element.className = name; return element; }
function listed(pairs) {
  const list = make("dl");
  for (const [name, value] of pairs) if (value !== "" && value !== undefined && value !== null) list.append(make("dt", name), make("dd", value));
  return list;
}

function showPanel() {
  panel.replaceChildren();
  panel.scrollTop = 0;
  if (!selected) return showTotals();
  const back = make("button", "← Whole graph", "back");
  back.onclick = () => select(null);
  panel.append(back);
  if (selected.kind === "group") showGroup(selected); else if (selected.kind === "node") showNode(selected); else showPort(selected);
}

function showTotals() {
  panel.append(make("h2", "Graph"), listed([
    ["Nodes", graph.nodes.length.toLocaleString("en")], ["Parameters", `${short(graph.parameters)} (${bytes(graph.parameter_bytes)})`],
    ["FLOPs", graph.flops === null ? "unknown: open shapes" : short(graph.flops)],
    ["Opset", Object.entries(graph.opsets).map(([domain, version]) => `${domain || "ai.onnx"} ${version}`).join(", ")],
    ["IR version", graph.ir_version], ["Dynamic", graph.dynamic_dims.join(", ") || "no dimension"],
    ["Functions", graph.functions || ""], ["Subgraphs", graph.subgraphs || ""], ["Producer", graph.producer],
  ]));
  for (const [title, infos] of [["Inputs", graph.inputs], ["Outputs", graph.outputs]]) {
    panel.append(make("h2", title));
    infos.forEach(info => panel.append(tensorCard(info.name, info, title === "Inputs" ? consumers.get(info.name) : [producers.get(info.name)], title === "Inputs" ? "to" : "from")));
  }
  panel.append(make("h2", "Operators"), histogram(Object.entries(graph.operators)));
}

function histogram(entries) {
  const all = make("div"), most = Math.max(1, ...entries.map(([, number]) => number));
  entries.sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).forEach(([op, number]) => {
    const row = make("button", undefined, "bar"), track = make("span", undefined, "track"), fill = make("span", undefined, "fill");
    fill.style.width = 100 * number / most + "%"; fill.style.background = `var(--${category(op.split(".").pop())})`;
    track.append(fill); row.append(make("span", op), track, make("span", number, "number"));
    row.title = `Find every ${op}`; row.onclick = () => search(op.split(".").pop(), true);
    all.append(row);
  });
  return all;
}

function heading(text, colour) {
  const title = make("div", undefined, "title"), chip = make("span", undefined, "chip");
  chip.style.background = `var(--${colour})`; title.append(chip, make("span", text)); panel.append(title);
}

function showGroup(group) {
  heading(group.name, "accent");
  const inside = leaves.filter(leaf => leaf.kind === "node" && within(leaf, group)), ops = {};
  inside.forEach(leaf => { ops[leaf.node.op] = (ops[leaf.node.op] || 0) + 1; });
  panel.append(listed([["In", pathOf(group)], ["Nodes", group.count.toLocaleString("en")], ["Parameters", bytes(group.bytes)]]));
  const toggleButton = make("button", group.open ? "Close this module" : "Open this module");
  toggleButton.style.marginTop = "12px"; toggleButton.onclick = () => toggle(group); panel.append(toggleButton);
  panel.append(make("h2", "Operators"), histogram(Object.entries(ops)));
}

function showNode(leaf) {
  const { node } = leaf;
  heading(node.op, category(node.op));
  panel.append(listed([["Name", node.name || "(none)"], ["Module", pathOf(leaf)], ["Domain", node.domain], ["Parameters", node.bytes ? bytes(node.bytes) : ""]]));
  const attributes = Object.entries(node.attributes);
  if (attributes.length) {
    panel.append(make("h2", "Attributes"));
    const list = make("dl");
    attributes.forEach(([name, value]) => { const cell = make("dd"); cell.append(make("pre", value)); list.append(make("dt", name), cell); });
    panel.append(list);
  }
  panel.append(make("h2", "Inputs"));
  node.inputs.forEach(name => panel.append(name ? tensorCard(name, graph.tensors[name], [producers.get(name)], "from") : make("div", "(left out)", "tensor")));
  if (!node.inputs.length) panel.append(make("div", "none"));
  panel.append(make("h2", "Outputs"));
  node.outputs.forEach(name => { if (name) panel.append(tensorCard(name, graph.tensors[name], consumers.get(name), "to")); });
}

function showPort(leaf) {
  heading(leaf.info.name, "io");
  panel.append(make("h2", leaf.kind === "input" ? "Input of the graph" : "Output of the graph"));
  panel.append(tensorCard(leaf.info.name, leaf.info, leaf.kind === "input" ? consumers.get(leaf.info.name) : [producers.get(leaf.info.name)], leaf.kind === "input" ? "to" : "from"));
}

function tensorCard(name, info, others, word) {
  const card = make("div", undefined, "tensor"), known = (others || []).filter(Boolean);
  card.append(make("div", name), make("div", info ? `${info.dtype} ${shapeOf(info)}` : "type unknown", "type"));
  if (!known.length && word === "from") card.append(make("div", info && info.bytes !== undefined ? `weight, ${bytes(info.bytes)}` : "constant", "type"));
  known.slice(0, 12).forEach(leaf => {
    const button = make("button", `${word} ${leaf.label}${leaf.node && leaf.node.name ? " · " + leaf.node.name : ""}`);
    button.onclick = () => reveal(leaf); card.append(button);
  });
  if (known.length > 12) card.append(make("div", `and ${known.length - 12} more`, "type"));
  return card;
}

function showTree() {
  const tree = document.getElementById("tree");
  if (!groups.length) { tree.replaceChildren(make("li", "This graph names no modules.", "none")); return; }
  tree.replaceChildren(...branches(root));
}
function branches(group) {
  return group.items.filter(item => item.kind === "group").map(item => {
    const entry = make("li"), row = make("div", undefined, "row"), caret = make("button", item.open ? "▾" : "▸", "caret"), name = make("button", item.name, "name");
    caret.onclick = () => toggle(item); caret.setAttribute("aria-label", item.open ? "Close" : "Open"); caret.setAttribute("aria-expanded", item.open);
    name.onclick = () => reveal(item); name.title = item.name;
    row.append(caret, name, make("span", item.count, "number")); entry.append(row);
    if (item.open) { const inner = make("ul"); inner.append(...branches(item)); if (inner.childNodes.length) entry.append(inner); }
    return entry;
  });
}
