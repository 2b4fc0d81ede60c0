"""A PyTorch module becomes a graph with its own names, really dynamic axes and the same outputs."""

from __future__ import annotations

import logging
import warnings
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from enginery.errors import ExportError, InputNameError, SourceError, UnknownNameError, UsageError
from enginery.sources import open_source
from enginery.spec import Example, Shape

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
nn = torch.nn


class Linear(nn.Module):
    """One layer, some dropout, one output."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))

    def forward(self, x):
        return self.block(x)


class Masked(nn.Module):
    """An integer input, a boolean one, a keyword; a dict with a nested tuple comes back."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(16, 4)

    def forward(self, ids, mask=None, *, scale=None):
        y = self.table(ids)
        if mask is not None:
            y = y.masked_fill(~mask[..., None], 0.0)
        if scale is not None:
            y = y * scale[:, None, None]
        return {"states": y, "pooled": (y.mean(1), y.amax(1)), "ids": ids, "loss": None}


def feeds_at(example, sizes):
    """Cut or repeat example arrays to other sizes."""
    return {name: np.resize(array, sizes[name]) for name, array in example.items()}


def onnxruntime_outputs(graph, feeds):
    """Run a graph with ONNX Runtime."""
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_agree(source, graph, feeds):
    """The module and its graph give the same names and numbers."""
    expected, found = source.run(feeds), onnxruntime_outputs(graph, feeds)
    assert list(expected) == list(found)
    for name, array in expected.items():
        assert array.dtype == found[name].dtype
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def test_names_are_those_of_forward_and_the_batch_is_really_dynamic():
    """The input is called as in forward, a single output `output`; two batch sizes agree with the module."""
    source = open_source(Linear(), example_inputs=torch.randn(1, 4))
    exported = source.export(shapes={"x": Shape.parse("1..1..8x4")}, opset=None)
    graph = exported.graph.graph
    assert [value.name for value in graph.inputs] == ["x"]
    assert [value.name for value in graph.outputs] == ["output"]
    assert str(graph.inputs[0].shape[0]) == str(graph.outputs[0].shape[0]) == "batch"
    for batch in (1, 5):
        assert_agree(source, exported.graph, {"x": np.random.default_rng(0).random((batch, 4), np.float32)})
    assert exported.record.exporter == "torch.onnx.export (dynamo)"
    assert exported.record.opset == 20
    assert exported.record.dynamic_axes == {"x": ("batch",)}
    assert exported.record.attempts == ()


def test_module_paths_are_kept_without_the_wrapper():
    """Weights and nodes carry the module's own paths, and no file path of the exporting machine."""
    graph = open_source(Linear(), example_inputs=torch.randn(2, 4)).export(shapes={}, opset=None).graph.graph
    assert "block.0.bias" in graph.initializers
    assert graph.name == "Linear"
    scopes = [node.metadata_props.get("pkg.torch.onnx.name_scopes", "") for node in graph]
    assert any("'block.0'" in scope for scope in scopes)
    assert not any("module" in scope for scope in scopes)
    assert not any(".py" in value for node in graph for value in node.metadata_props.values())


def test_ints_bools_keywords_and_nested_outputs():
    """Integer and boolean inputs, a keyword-only one, and dict and tuple outputs all keep their names."""
    rng = np.random.default_rng(0)
    example = {
        "ids": rng.integers(0, 16, (2, 5)),
        "mask": torch.tensor(rng.random((2, 5)) > 0.3),
        "scale": np.ones(2, np.float32),
    }
    source = open_source(Masked(), example_inputs=example)
    shapes = {
        "ids": Shape.parse("1..2..4x1..5..9"),
        "mask": Shape.parse("1..2..4x1..5..9"),
        "scale": Shape.parse("1..2..4"),
    }
    exported = source.export(shapes=shapes, opset=None)
    assert [value.name for value in exported.graph.graph.inputs] == ["ids", "mask", "scale"]
    assert exported.record.dynamic_axes == {"ids": ("batch", "dim1"), "mask": ("batch", "dim1"), "scale": ("batch",)}
    assert list(source.run(source.example_feeds())) == ["states", "pooled_0", "pooled_1", "ids_output"]
    for batch, length in ((1, 9), (3, 4)):
        feeds = feeds_at(source.example_feeds(), {"ids": (batch, length), "mask": (batch, length), "scale": (batch,)})
        assert_agree(source, exported.graph, feeds)


def test_two_inputs_in_a_tuple():
    """A tuple is the arguments in order, and inputs that forward does not use stay inputs."""

    class Sum(nn.Module):
        def forward(self, left, right, unused):  # noqa: ARG002 - it stays an input
            return left + right, left

    source = open_source(Sum(), example_inputs=(torch.ones(2, 3), np.ones((2, 3), np.float32), torch.ones(2)))
    exported = source.export(shapes={"left": Shape.parse("1..4x3"), "right": Shape.parse("1..4x3")}, opset=None)
    assert [value.name for value in exported.graph.graph.inputs] == ["left", "right", "unused"]
    assert [value.name for value in exported.graph.graph.outputs] == ["output_0", "output_1"]


def test_named_tuples_and_dataclasses_name_their_fields():
    """Outputs of a named tuple or a dataclass are called as its fields."""
    Pair = namedtuple("Pair", ["mean", "spread"])  # noqa: PYI024 - the untyped kind must work too

    @dataclass
    class Result:
        logits: object
        pair: object
        cache: object = None

    class Fields(nn.Module):
        def forward(self, x):
            return Result(x * 2, Pair(x.mean(1), x.amax(1)))

    source = open_source(Fields(), example_inputs=torch.randn(2, 3))
    graph = source.export(shapes={"x": Shape.parse("1..4x3")}, opset=None).graph
    assert [value.name for value in graph.graph.outputs] == ["logits", "pair_mean", "pair_spread"]
    assert_agree(source, graph, {"x": np.ones((3, 3), np.float32)})


def test_one_dict_argument_names_the_inputs():
    """A forward that takes one dict gets it whole, and its keys are the inputs' names."""

    class Batch(nn.Module):
        def forward(self, batch):
            return batch["a"] + batch["b"]

    source = open_source(Batch(), example_inputs={"a": torch.ones(2, 3), "b": torch.ones(2, 3)})
    graph = source.export(shapes={"a": Shape.parse("1..4x3"), "b": Shape.parse("1..4x3")}, opset=None).graph
    assert [value.name for value in graph.graph.inputs] == ["a", "b"]
    assert_agree(source, graph, {"a": np.ones((3, 3), np.float32), "b": np.ones((3, 3), np.float32)})


def test_an_example_names_the_input():
    """A name that is no parameter stands for the next parameter, and a made-up example is no data."""
    source = open_source(Linear(), examples=[Example.parse("features:float32[1,4]")])
    assert source.example_feeds() is None
    graph = source.export(shapes={"features": Shape.parse("1..4x4")}, opset=None).graph
    assert [value.name for value in graph.graph.inputs] == ["features"]
    assert_agree(source, graph, {"features": np.ones((3, 4), np.float32)})


def reshaped(x):
    """Fix the batch by a shape."""
    return x.reshape(2, 12) + 1


def added(x):
    """Fix the batch by a constant of its size."""
    return x + torch.zeros(2, 3, 4)


def added_after_a_branch(x):
    """Fix the batch where torch.export does not come."""
    return x + torch.zeros(2, 3, 4) if x.sum() < 1e9 else x


@pytest.mark.parametrize("code", [reshaped, added, added_after_a_branch])
def test_a_hard_coded_batch_is_caught(code):
    """A batch that the code fixes is an error with the line and the sizes, never a static graph."""

    class Fixed(nn.Module):
        def forward(self, x):
            return code(x)

    source = open_source(Fixed(), example_inputs=torch.randn(2, 3, 4))
    with pytest.raises(ExportError) as caught:
        source.export(shapes={"x": Shape.parse("1..2..8x3x4")}, opset=None)
    assert "at x 3x3x4, which is within the shapes asked for, torch module Fixed raised" in caught.value.message
    assert f"at test_torch_module.py:{code.__code__.co_firstlineno + 2}, in {code.__name__}" in caught.value.message
    assert caught.value.mend.startswith("a size is fixed in that line, or before it: take it from the input's shape")


def test_a_batch_folded_into_fixed_rows_is_caught():
    """A reshape that takes any batch and always gives the rows of one is an error that shows both."""

    class Folded(nn.Module):
        def forward(self, x):
            return x.reshape(4, -1)

    source = open_source(Folded(), example_inputs=torch.randn(4, 3, 4))
    with pytest.raises(ExportError, match=r"'output' 4 rows at every batch: 4x12, 4x9, 4x3 at batch 4, 3, 1; its code"):
        source.export(shapes={"x": Shape.parse("1..4..8x3x4")}, opset=None)


def test_sizes_that_the_input_gives_are_dynamic():
    """Sizes taken from the input's shape, and rows that are cut off, stay as they are at every batch."""

    class Right(nn.Module):
        def forward(self, x):
            return x.view(x.shape[0], -1), x[:4], x.reshape(-1, x.size(0)).t()

    source = open_source(Right(), example_inputs=torch.randn(4, 3, 4))
    exported = source.export(shapes={"x": Shape.parse("1..8x3x4")}, evaluate=onnxruntime_outputs)
    for batch in (1, 3, 8):
        assert_agree(source, exported.graph, {"x": np.random.default_rng(0).random((batch, 3, 4), np.float32)})


def test_a_branch_on_values_falls_back_to_tracing():
    """What torch.export refuses is traced, and the record says that, why, and at which line."""

    class Branch(nn.Module):
        def forward(self, x):
            if x.sum() > 1e9:
                return x - 1
            return x + x.shape[0]

    source = open_source(Branch(), example_inputs=torch.ones(2, 3))
    exported = source.export(shapes={"x": Shape.parse("1..2..8x3")}, opset=None)
    assert exported.record.exporter == "torch.onnx.export (TorchScript)"
    assert len(exported.record.attempts) == 1
    assert "test_torch_module.py" in exported.record.attempts[0]
    assert "if x.sum() > 1e9:" in exported.record.attempts[0]
    assert any("branches that depend on values" in note for note in exported.record.notes)
    assert str(exported.graph.graph.outputs[0].shape) == "[batch,3]"
    for batch in (1, 5):
        assert_agree(source, exported.graph, {"x": np.ones((batch, 3), np.float32)})


def test_a_trace_that_fixes_sizes_is_refused():
    """Tracing that bakes a size in is found out by running the trace at another size."""

    class Baked(nn.Module):
        def forward(self, x):
            if x.sum() > 1e9:
                return x
            return x + float(x.shape[0])

    source = open_source(Baked(), example_inputs=torch.ones(2, 3))
    with pytest.raises(
        ExportError, match=r"at x 3x3, gives another 'output' than the module: .* at test_torch_module\.py:"
    ):
        source.export(shapes={"x": Shape.parse("1..2..8x3")}, opset=None)


def test_a_size_that_the_exporter_bakes_in_is_found_by_the_outputs():
    """torch.export fixes an LSTM's length without a word; the outputs' sizes give it away, and tracing takes over."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(4, 3, batch_first=True)

        def forward(self, x):
            return self.cell(x)[0]

    source = open_source(Recurrent(), example_inputs=torch.randn(2, 5, 4))
    exported = source.export(shapes={"x": Shape.parse("1..2..4xlength:1..5..9x4")}, opset=None)
    if exported.record.attempts:  # a later torch may do it right
        assert "output 'output', axis 1 became the constant 5" in exported.record.attempts[0]
        assert "test_torch_module.py" in exported.record.attempts[0]
        assert "return self.cell(x)[0]" in exported.record.attempts[0]
    assert str(exported.graph.graph.outputs[0].shape) == "[batch,length,3]"
    for batch, length in ((1, 9), (3, 2)):
        feeds = {"x": np.random.default_rng(0).random((batch, length, 4), np.float32)}
        assert_agree(source, exported.graph, feeds)


def test_a_graph_that_disagrees_is_not_taken():
    """With `evaluate`, an exporter whose graph gives other numbers is an attempt, and all of them an error."""
    source = open_source(Linear(), example_inputs=torch.randn(2, 4))
    good = source.export(shapes={"x": Shape.parse("1..4x4")}, evaluate=onnxruntime_outputs)
    assert good.record.attempts == ()
    with pytest.raises(ExportError, match="its graph, at x 4x4, gives another 'output' than the module"):
        source.export(
            shapes={"x": Shape.parse("1..4x4")},
            evaluate=lambda graph, feeds: {"output": onnxruntime_outputs(graph, feeds)["output"] + 1},
        )


def test_a_decoder_step_with_its_cache():
    """Nested tuples of keys and values go in and come out under names that say layer and place."""

    class Step(nn.Module):
        def forward(self, ids, past_key_values, mask=None):
            present = tuple(
                (torch.cat([k, k[:, -1:] + ids[:, :, None]], 1), torch.cat([v, v[:, -1:]], 1))
                for k, v in past_key_values
            )
            return {"logits": sum(k.sum(1) for k, _ in present), "present": present, "mask": mask}

    past = tuple((torch.randn(2, 5, 3), torch.randn(2, 5, 3)) for _ in range(2))
    source = open_source(Step(), example_inputs={"ids": torch.ones(2, 1, dtype=torch.int64), "past_key_values": past})
    places = [f"{layer}_{part}" for layer in (0, 1) for part in (0, 1)]
    shapes = {"ids": Shape.parse("batch:1..2..4x1")}
    shapes |= {f"past_key_values_{place}": Shape.parse("batch:1..2..4xpast:1..5..9x3") for place in places}
    exported = source.export(shapes=shapes, evaluate=onnxruntime_outputs)
    graph = exported.graph.graph
    assert exported.record.attempts == ()
    assert [value.name for value in graph.inputs] == ["ids", *(f"past_key_values_{place}" for place in places)]
    assert [value.name for value in graph.outputs] == ["logits", *(f"present_{place}" for place in places)]
    assert exported.record.peak_memory_bytes > 0


def test_names_never_clash():
    """Outputs may be called as an input, or as an inner value of the exporter's."""

    class Clash(nn.Module):
        def forward(self, x):
            return {"add": (x + 1) * 2, "mul": x + 3, "x": x * 2}

    source = open_source(Clash(), example_inputs=torch.ones(2, 3))
    exported = source.export(shapes={"x": Shape.parse("1..4x3")}, opset=None)
    assert exported.record.attempts == ()
    assert [value.name for value in exported.graph.graph.outputs] == ["add", "mul", "x_output"]
    assert_agree(source, exported.graph, {"x": np.ones((3, 3), np.float32)})


def test_axes_that_the_model_makes_one_are_noted():
    """Two names for sizes that the model adds become one, and the record says so."""

    class Sum(nn.Module):
        def forward(self, left, right):
            return left + right

    source = open_source(Sum(), example_inputs=(torch.ones(2, 3), torch.ones(2, 3)))
    shapes = {"left": Shape.parse("a:1..4x3"), "right": Shape.parse("b:1..4x3")}
    exported = source.export(shapes=shapes, opset=None)
    assert "input 'right', axis 0: the model needs b to equal a" in exported.record.notes


def test_an_old_opset_is_what_was_asked_for():
    """Opset 17 is written as 17, by the exporter that can."""
    source = open_source(Linear(), example_inputs=torch.randn(2, 4))
    exported = source.export(shapes={"x": Shape.parse("1..4x4")}, opset=17)
    assert exported.graph.opset_imports[""] == exported.record.opset == 17
    assert "18 at the least" in exported.record.attempts[0]
    assert_agree(source, exported.graph, {"x": np.ones((3, 4), np.float32)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_exported_in_float32_and_said_so(dtype):
    """A module in half precision gives a float32 graph and a note; the module itself stays as it was."""
    module = Linear().to(dtype)
    source = open_source(module, example_inputs=torch.randn(2, 4).to(dtype))
    exported = source.export(shapes={}, opset=None)
    assert exported.graph.graph.inputs[0].dtype == ir.DataType.FLOAT
    assert any("were taken as float32" in note for note in exported.record.notes)
    assert module.block[0].weight.dtype == dtype
    assert_agree(source, exported.graph, source.example_feeds())


def test_training_mode_is_put_back():
    """Exporting and running compute in evaluation mode, say so, and leave every submodule's mode alone."""
    module = Linear().train()
    module.block[0].eval()
    source = open_source(module, example_inputs=torch.randn(2, 4))
    exported = source.export(shapes={}, opset=None)
    feeds = source.example_feeds()
    np.testing.assert_array_equal(source.run(feeds)["output"], source.run(feeds)["output"])
    assert len(source.timer(feeds)(0.0, 0.0, 1)) == 1
    assert [part.training for part in module.modules()] == [True, True, False, True]
    assert "the module was in training mode; it was exported in evaluation mode" in exported.record.notes


def test_nothing_is_printed_and_nothing_warns(capfd, caplog):
    """Exporters that print, log and warn are kept still, also when they fail."""

    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    caplog.set_level(logging.INFO)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for module in (Linear(), Branch()):
            open_source(module, example_inputs=torch.ones(2, 4)).export(shapes={}, opset=None)
    assert capfd.readouterr() == ("", "")
    assert caught == []
    assert caplog.records == []


def test_arrays_returned_are_the_callers():
    """An output that is the input comes back as another array, and a module may write to what it gets."""

    class InPlace(nn.Module):
        def forward(self, x):
            return x.add_(1)

    source = open_source(InPlace(), example_inputs=torch.zeros(2))
    feeds = {"x": np.zeros(2, np.float32)}
    feeds["x"].flags.writeable = False
    assert source.run(feeds)["output"].tolist() == [1.0, 1.0]
    assert feeds["x"].tolist() == [0.0, 0.0]


def test_the_hash_is_of_the_weights():
    """Equal weights hash alike, another weight hashes differently."""
    torch.manual_seed(0)
    one = Linear()
    two = Linear()
    before = open_source(two).sha256
    two.load_state_dict(one.state_dict())
    assert open_source(one).sha256 == open_source(two).sha256 != before


def test_wrong_feeds_and_shapes_are_named():
    """Unknown inputs, wrong ranks and missing examples say what is known and what to do."""
    source = open_source(Linear(), example_inputs=torch.randn(2, 4))
    with pytest.raises(InputNameError, match="its inputs are x"):
        source.run({"y": np.zeros((2, 4), np.float32)})
    with pytest.raises(UnknownNameError, match="unknown input 'xx'; did you mean 'x'"):
        source.export(shapes={"xx": Shape.parse("2x4")}, opset=None)
    with pytest.raises(UsageError, match="has 1 dimensions, its example has 2: 2x4"):
        source.export(shapes={"x": Shape.parse("1..4")}, opset=None)
    with pytest.raises(SourceError, match="has no example inputs; give example inputs"):
        open_source(Linear()).export(shapes={}, opset=None)


def test_a_forward_that_fails_is_quoted():
    """An example that the module cannot take gives the module's own error and the shapes it was given."""
    source = open_source(Linear(), example_inputs=torch.randn(2, 5))
    with pytest.raises(SourceError) as caught:
        source.export(shapes={}, opset=None)
    assert "cannot be multiplied" in caught.value.message
    assert "test_torch_module.py" in caught.value.message
    assert caught.value.mend == "check the inputs: torch.float32 (2, 5)"


def test_an_output_that_is_no_tensor_is_refused():
    """A forward that returns something else than tensors is told to be wrapped."""

    class Text(nn.Module):
        def forward(self, x):
            return {"y": x, "name": "text"}

    source = open_source(Text(), example_inputs=torch.randn(2))
    with pytest.raises(SourceError, match="output name is a str, not a tensor; wrap the model"):
        source.export(shapes={}, opset=None)


def test_examples_that_do_not_fit_forward():
    """Too many or missing examples name the signature."""
    with pytest.raises(SourceError, match="do not fit forward"):
        open_source(Linear(), example_inputs=(torch.ones(1), torch.ones(1)))
    with pytest.raises(SourceError, match=r"examples for 'a', 'b', and forward\(ids, mask=None, \*, scale=None\)"):
        open_source(Masked(), example_inputs={"ids": torch.ones(1), "mask": torch.ones(1), "a": 1, "b": 2})


@pytest.mark.parametrize("said", [{}, {"tgt_is_causal": True}], ids=["unsaid", "said"])
def test_a_transformer_mask_that_is_looked_at(said):
    """Where PyTorch's own transformer looks at the values of a mask, the mend is the argument that spares it that."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

        def forward(self, src, tgt):
            mask = nn.Transformer.generate_square_subsequent_mask(tgt.shape[1])
            return self.both(src, tgt, tgt_mask=mask, **said)

    source = open_source(Masked(), example_inputs=(torch.randn(2, 5, 8), torch.randn(2, 6, 8)))
    shapes = {"src": Shape.parse("batch:1..2..4x5x8"), "tgt": Shape.parse("batch:1..2..4xlength:2..6..9x8")}
    if said:
        assert source.export(shapes=shapes).record.attempts == ()
        return
    with pytest.raises(ExportError, match="cannot be exported to ONNX") as caught:
        source.export(shapes=shapes)
    assert caught.value.mend.startswith("say beside the mask whether it is causal, tgt_is_causal=True")
