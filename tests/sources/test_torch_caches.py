"""Decoders of transformers take and return their caches as tensors with the names that the field gives them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.sources import open_source
from enginery.spec import Shape

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
ort = pytest.importorskip("onnxruntime")

PRESENT = [f"present.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
PAST = [f"past_key_values.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]


def evaluate(graph, feeds):
    """Run a graph with ONNX Runtime."""
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def llama():
    """Return a small decoder with random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def t5():
    """Return a small encoder with a decoder, whose cache has two parts."""
    config = transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return transformers.T5ForConditionalGeneration(config).eval()


def test_a_plain_decoder_returns_its_cache():
    """`LlamaForCausalLM` as it is: logits, and the keys and values of each layer, at any batch and length."""
    source = open_source(llama(), example_inputs={"input_ids": torch.arange(10).reshape(2, 5)})
    exported = source.export(shapes={"input_ids": Shape.parse("1..2..4xlength:2..5..9")}, evaluate=evaluate)
    outputs = exported.graph.graph.outputs
    assert [value.name for value in outputs] == ["logits", *PRESENT]
    assert str(outputs[1].shape) == "[batch,1,length,8]"
    assert exported.record.attempts == ()


def test_a_step_takes_its_cache_and_leaves_the_example_alone():
    """A cache among the inputs: a tensor for each key and value, of any length; one call does not grow the example."""
    model, tokens = llama(), torch.arange(8).reshape(2, 4)
    cache = transformers.DynamicCache(config=model.config)
    model(tokens[:, :3], past_key_values=cache)
    source = open_source(model, example_inputs={"input_ids": tokens[:, 3:], "past_key_values": cache})
    assert list(source.example_feeds()) == ["input_ids", *PAST]
    shapes = {"input_ids": Shape.parse("batch:1..2..4x1")}
    shapes |= {name: Shape.parse("batch:1..2..4x1xpast:1..3..9x8") for name in PAST}
    exported = source.export(shapes=shapes, evaluate=evaluate)
    assert [value.name for value in exported.graph.graph.outputs] == ["logits", *PRESENT]
    with torch.no_grad():
        whole = model(tokens).logits[:, -1:].numpy()
    for _ in range(2):
        np.testing.assert_allclose(source.run(source.example_feeds())["logits"], whole, rtol=1e-4, atol=1e-5)
    assert cache.get_seq_length() == 3


def test_a_cache_of_two_parts():
    """An encoder's and a decoder's keys and values are told apart by name."""
    example = {"input_ids": torch.ones(2, 5, dtype=torch.int64), "decoder_input_ids": torch.ones(2, 3).long()}
    outputs = open_source(t5(), example_inputs=example).run({k: v.numpy() for k, v in example.items()})
    parts = [f"present.0.{part}.{kind}" for part in ("decoder", "encoder") for kind in ("key", "value")]
    assert list(outputs) == ["logits", *parts, "encoder_last_hidden_state"]
    assert outputs["present.0.decoder.key"].shape == (2, 2, 3, 8)
    assert outputs["present.0.encoder.key"].shape == (2, 2, 5, 8)
