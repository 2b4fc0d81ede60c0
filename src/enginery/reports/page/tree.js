// The graph as a tree of modules: groups hold groups and nodes; links join the leaves.

const graph = JSON.parse(document.getElementById("graph-data").textContent);

const CATEGORIES = [
  ["conv", /^(Q?Linear)?Conv|ConvTranspose|DeformConv|FusedConv/], ["matmul", /MatMul|^Gemm$|Einsum|Attention|LSTM|GRU|RNN/],
  ["quant", /Quantize|Dequantize|QLinear|^Cast/], ["norm", /Norm/],
  ["activation", /Relu|Sigmoid|Tanh|Gelu|Elu|Erf|Softmax|Swish|Mish|Softplus|Softsign|Clip|HardS/],
  ["pool", /Pool|^Reduce|ArgM|TopK|CumSum/],
  ["arith", /^(Add|Sub|Mul|Div|Pow|Sqrt|Exp|Log|Neg|Abs|Min|Max|Mean|Sum|Mod|Reciprocal|Floor|Ceil|Round|Sign|Sin|Cos|Not|And|Or|Xor|Equal|Greater.*|Less.*|Where|BitShift.*|IsNaN|IsInf)$/],
  ["shape", /[Ss]hape|Transpose|[Ss]queeze|Flatten|Concat|Split|Slice|Gather|Scatter|Pad|Expand|Tile|Resize|Upsample|Constant|Range|Size|Identity|DepthToSpace|SpaceToDepth|OneHot|NonZero/],
  ["control", /^(If|Loop|Scan|Sequence.*|Optional.*)$/],
];
const category = op => (CATEGORIES.find(([, pattern]) => pattern.test(op)) || ["other"])[0];

const root = { kind: "group", id: "g", name: graph.name, parent: null, items: [], open: true, count: 0, bytes: 0, order: 0, depth: 0 };
const groups = [];
const leaves = graph.nodes.map((node, at) => {
  const parent = groupAt(node.path);
  const leaf = { kind: "node", id: "n" + at, node, parent, order: at, label: node.op };
  parent.items.push(leaf);
  for (let group = parent; group; group = group.parent) { group.count += 1; group.bytes += node.bytes; }
  return leaf;
});

function groupAt(path) {
  let group = root;
  for (const name of path) {
    group.named = group.named || new Map();
    if (!group.named.has(name)) {
      const made = { kind: "group", id: "g" + groups.length, name, parent: group, items: [], open: false, count: 0, bytes: 0, depth: group.depth + 1 };
      made.order = leavesSoFar();
      groups.push(made); group.items.push(made); group.named.set(name, made);
    }
    group = group.named.get(name);
  }
  return group;
}
function leavesSoFar() { return root.count; }

const producers = new Map(), consumers = new Map();
leaves.forEach(leaf => {
  leaf.node.outputs.forEach(name => { if (name) producers.set(name, leaf); });
  new Set(leaf.node.inputs).forEach(name => { if (name) consumers.set(name, [...(consumers.get(name) || []), leaf]); });
});

const links = graph.edges.map(([from, to, tensor]) => ({ from: leaves[from], to: leaves[to], tensor }));
for (const info of graph.inputs) {
  const leaf = { kind: "input", id: "i" + info.name, info, parent: root, order: -1, label: info.name };
  root.items.unshift(leaf); leaves.push(leaf); producers.set(info.name, leaf);
  (consumers.get(info.name) || []).forEach(to => links.push({ from: leaf, to, tensor: info.name }));
}
for (const info of graph.outputs) {
  const leaf = { kind: "output", id: "o" + info.name, info, parent: root, order: graph.nodes.length, label: info.name };
  root.items.push(leaf); leaves.push(leaf);
  const from = producers.get(info.name);
  if (from) links.push({ from, to: leaf, tensor: info.name });
  consumers.set(info.name, [...(consumers.get(info.name) || []), leaf]);
}

function openSome(limit) {
  // Open the outermost modules first, as long as the drawing stays small enough to be read.
  let shown = root.items.length;
  for (const group of [...groups].sort((a, b) => a.depth - b.depth || a.order - b.order)) {
    if (group.parent.open && (group.items.length === 1 || shown + group.items.length <= limit)) {
      group.open = true; shown += group.items.length;
    }
  }
}

const bytes = value => {
  if (value < 1024) return value + " B";
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let at = -1;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return value.toFixed(value < 100 ? 1 : 0) + " " + units[at];
};
const short = value => {
  if (value === null || value === undefined) return "unknown";
  if (value < 10000) return String(value);
  const units = ["k", "M", "G", "T", "P"];
  let at = -1;
  while (value >= 1000 && at < units.length - 1) { value /= 1000; at += 1; }
  return value.toFixed(value < 100 ? 1 : 0) + " " + units[at];
};
const shapeOf = info => !info ? "" : info.shape === null ? "any rank" : info.shape.length ? info.shape.join("×") : "scalar";
const pathOf = item => { const names = []; for (let g = item.parent; g && g !== root; g = g.parent) names.unshift(g.name); return names.join(" / "); };
