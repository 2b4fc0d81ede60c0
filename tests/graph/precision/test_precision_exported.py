"""Casting what PyTorch exports: a convolutional network with resizing, and a masked transformer of any length."""

from __future__ import annotations

import numpy as np
import pytest

import enginery
from enginery.graph.base import all_nodes, load_model
from enginery.spec import parse_shapes

torch = pytest.importorskip("torch")


class Resizing(torch.nn.Module):
    """Convolutions around two resizings, one by a factor and one to another tensor's size."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.last = torch.nn.Conv2d(8, 3, 1)

    def forward(self, image):
        """Return a picture of the size of the one given."""
        small = torch.relu(self.norm(self.first(image)))
        large = torch.nn.functional.interpolate(small, scale_factor=2.0, mode="bilinear")
        return torch.nn.functional.interpolate(self.last(large), size=image.shape[2:], mode="nearest")


class Masked(torch.nn.Module):
    """One layer of an encoder, its mask made with the smallest float32, as transformers do."""

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(50, 16)
        self.query, self.key, self.value = (torch.nn.Linear(16, 16) for _ in range(3))
        self.norm = torch.nn.LayerNorm(16, eps=1e-12)

    def forward(self, ids, mask):
        """Return a vector for each word."""
        x = self.words(ids)
        away = (1.0 - mask[:, None, :].to(torch.float32)) * torch.finfo(torch.float32).min
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 4.0 + away
        return self.norm(x + torch.softmax(scores, -1) @ self.value(x))


CASES = {
    "resizing": (Resizing, (torch.zeros(2, 3, 32, 32),), "image=1..4x3x32x32"),
    "masked": (
        Masked, (torch.zeros(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)),
        "ids=1..4x2..16,mask=1..4x2..16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_exported_modules(name, precision, cast, run, tmp_path):
    """They agree with float32 within the type's tolerance; bfloat16 passes the whole checker."""
    make, example, shapes = CASES[name]
    torch.manual_seed(0)
    module = make().eval()
    path = tmp_path / "exported.onnx"
    enginery.export(module, path, example_inputs=example, shapes=parse_shapes([shapes]), opset=20, simplify=True)
    model = load_model(path)
    result = cast(model, precision)
    heavy = [node for node in all_nodes(result) if node.op_type in ("Conv", "MatMul", "Gemm", "Resize")]
    assert heavy
    assert {node.outputs[0].dtype.name for node in heavy} == {"FLOAT16" if precision == "fp16" else "BFLOAT16"}
    if precision == "fp16":
        random = np.random.default_rng(0)
        feeds = {"image": random.standard_normal((3, 3, 32, 32)).astype(np.float32)}
        if name == "masked":
            feeds = {"ids": random.integers(0, 50, (3, 5)), "mask": np.array([[1, 1, 1, 0, 0]] * 3)}
        (found,), (expected,) = run(result, **feeds), run(model, **feeds)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found - expected) < 1e-2 * np.linalg.norm(expected)
