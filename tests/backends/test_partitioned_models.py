"""Models of real kinds in parts: a torch CNN and a transformer, control flow, and deep graphs of many branches."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import sharing_backend
from enginery import backends, steps
from enginery.backends import engine
from enginery.spec import BuildSpec, parse_shapes


@pytest.fixture(autouse=True)
def sharing(monkeypatch):
    """Make the sharing backend known, with nothing unsupported and nothing refused."""
    monkeypatch.setitem(backends.table(), "sharing", backends.BackendRow("sharing_backend", "", "for tests"))
    for held in (sharing_backend.UNSUPPORTED, sharing_backend.REFUSED, sharing_backend.BUILT):
        held.clear()
    return sharing_backend


@pytest.fixture
def compared(tmp_path):
    """Return a function that builds a source on the sharing backend, verifies it, and returns its record and parts."""

    def make(source, shapes, **example):
        built = steps.build(
            source, tmp_path / "s.engine", backend="sharing", shapes=parse_shapes([shapes]), in_process=True, **example
        )
        record = steps.verify(built.folder, source, **example)
        return record, built.manifest.build.parts

    return make


def test_torch_cnn(sharing, compared):
    """An operator in the middle that is not taken: every size of the batch agrees with torch."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Softsign(),
        nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip
    sharing.UNSUPPORTED.add("Abs")  # which torch's exporter makes of Softsign
    record, parts = compared(net, "input=1..2..4x3x16x16", example_inputs=torch.randn(2, 3, 16, 16))
    assert record.passed
    assert record.error < 1e-5
    assert [part.main for part in parts] == [True, False, True]
    assert parts[1].operators == {"Abs": 1}


def test_torch_transformer(sharing, compared):
    """Sizes that arithmetic on shapes decides, with two dynamic axes; each layer's normalisation is not taken."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)
            self.norm = torch.nn.LayerNorm(16)

        def forward(self, x):
            batch, length, width = x.shape
            q, k, v = self.qkv(x).reshape(batch, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
            weights = torch.softmax(q @ k.transpose(-1, -2) / 2, dim=-1)
            return self.norm(x + self.out((weights @ v).transpose(1, 2).reshape(batch, length, width)))

    net = torch.nn.Sequential(Attention(), Attention()).eval()
    sharing.UNSUPPORTED.add("LayerNormalization")
    record, parts = compared(net, "input=1..2..4x3..8..16x16", example_inputs=torch.randn(2, 8, 16))
    assert record.passed
    assert record.error < 1e-5
    assert [part.main for part in parts] == [True, False, True, False]
    assert all(part.handed_over_bytes is not None for part in parts)


def test_control_flow(sharing, tmp_path):
    """An If around a Loop goes to the rest whole; what its branches capture is handed to it."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3] x, int64 k, bool c) => (float[n, 3] y)
        <float[3, 3] w = {1, 2, 0, 0, 1, 3, 1, 0, 1}, bool go = {1}> {
            [m] a = MatMul(x, w)
            [choose] b = If (c) <
                then_branch = t () => (float[n, 3] r) { [repeat] r = Loop (k, go, a) <
                    body = s (int64 i, bool ci, float[n, 3] p) => (bool co, float[n, 3] q) {
                        co = Identity(ci) q = Add(p, x) }> },
                else_branch = e () => (float[n, 3] f) { f = Neg(a) }>
            [last] y = MatMul(b, w)
        }""")
    model.graph[1].outputs[0].shape = ir.Shape(["n", 3])
    sharing.UNSUPPORTED.add("If")
    spec = BuildSpec(parse_shapes(["x=1..2..4x3"]))
    shared = engine.build(model, spec, tmp_path / "s.engine", backend="sharing")
    whole = engine.build(model, spec, tmp_path / "w.engine", backend="onnxruntime")
    assert [part.main for part in shared.manifest.build.parts] == [True, False, True]
    with shared.open() as one, whole.open() as other:
        for rows, chosen in ((1, True), (4, True), (2, False)):
            x = np.random.default_rng(rows).random((rows, 3), np.float32)
            feeds = {"x": x, "k": np.array(3), "c": np.array(chosen)}
            np.testing.assert_allclose(one.run(feeds)["y"], other.run(feeds)["y"], rtol=1e-6)


@pytest.mark.parametrize(("name", "refused"), [("light_densenet121", "Concat"), ("light_inception_v2", "AveragePool")])
def test_light_architectures(name, refused, sharing, light_models, tmp_path):
    """Deep graphs of many branches, each cut at an operator of which they have several."""
    from enginery.graph import files

    model = files.load(light_models / f"{name}.onnx")
    sharing.UNSUPPORTED.add(refused)
    shared = engine.build(model, BuildSpec(), tmp_path / "s.engine", backend="sharing")
    whole = engine.build(model, BuildSpec(), tmp_path / "w.engine", backend="onnxruntime")
    assert len(shared.manifest.build.parts) > 3
    info = whole.manifest.inputs[0]
    feeds = {info.name: np.random.default_rng(0).random(info.shape, np.float32)}
    with shared.open() as one, whole.open() as other:
        for output, expected in other.run(feeds).items():
            np.testing.assert_allclose(one.run(feeds)[output], expected, rtol=1e-4, atol=1e-6)
