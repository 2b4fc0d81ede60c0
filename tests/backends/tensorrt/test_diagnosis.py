"""What TensorRT's own texts mean: each of these was seen, or stands in the library's messages."""

from __future__ import annotations

import pytest

from enginery.backends.tensorrt.diagnosis import diagnose, meaning_of
from enginery.backends.tensorrt.versions import LIBRARIES

TENSORRT, RTX = LIBRARIES["tensorrt"], LIBRARIES["tensorrt_rtx"]

TEXTS = [
    ("Network has dynamic or shape inputs, but no optimization profile has been defined.", "give --shapes NAME="),
    ("CUDA initialization failure with error: 35. Please check your CUDA installation", "see `nvidia-smi`"),
    ("Unable to determine GPU memory usage: cudaErrorInsufficientDriver", "one too old for this library's CUDA"),
    ("CUDA initialization failure with error: 100", "CUDA_VISIBLE_DEVICES"),
    ("libcudnn.so.8: cannot open shared object file: No such file", "enginery doctor"),
    (("Error Code 1: Serialization (Serialization assertion stdVersionRead == serializationVersion failed."
     "Version tag does not match. Note: Current Version: 213, Serialized Engine Version: 205)"),
     "built by another version of TensorRT"),
    (("Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, expecting compute "
     "8.6 got compute 7.5, please rebuild.)"), "build it again on this one"),
    ("Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match", "cut short or was changed"),
    ("IRuntime::deserializeCudaEngine: Error Code 1: Serialization Error", "cut short or was changed"),
    ("Optimization profile 0 is missing values for shape input tensor s. In validate at", "--values s=1..4..8x16"),
    ("kOPT values for profile 0 violate shape constraints: IShuffleLayer mm: reshaping failed", "at opt and at max"),
    ("Called with invalid shape profile, expect min <= common <= max on input 2", "contradict each other"),
    ("getPluginCreator could not find plugin: MyOp version: 1", "--option plugins=/path/libops.so"),
    ("No importer registered for op: Foo", "partition=auto"),
    ("Could not find any implementation for node {ForeignNode[a...b]}.", "workspace_mib"),
    ("Requested amount of GPU memory (34359738368 bytes) could not be allocated. out of memory", "GPU memory ran out"),
    ("Cannot compile for target(s) sm75, because the model contains HW-specific datatypes: b16. In", "has no b16"),
    ("attachExceptionMsgToGraph] MyelinCheckException: graph_jit.cpp:278: CHECK(status == CUDA_SUCCESS) failed.",
     "leave out refit and strip_weights"),
    ("only supports symmetric quantization. The zero point must be zero", "zero point 0"),
    ("Your ONNX model has been generated with INT64 weights, 9000000000 out of range", "take TensorRT 10"),
    ("fp16 precision has been set for a layer or layer output, but fp16 is not configured", "--precision fp16"),
    ("Failed to convert ONNX date type to TensorRT data type.", "no such element type"),
    ("No nesting relationship between loops", "form of Loop or If"),
    ("Error Code 1: Myelin (some assertion)", "optimization_level=2"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), TEXTS, ids=[text[:40] for text, _ in TEXTS])
def test_what_a_text_means(text, said):
    """The meaning names what to do, in a user's words."""
    assert said in (meaning_of(text, TENSORRT) or "")


def test_rtx_is_told_apart():
    """TensorRT-RTX has no plugins and no data-dependent operators: it is not told to name a plugin."""
    text = "node 'nz' (NonZero): NonZero plugin creator version 1 was not found in plugin registry."
    assert "plugins=" in (meaning_of(text, TENSORRT) or "")
    assert "depend on data" in (meaning_of(text, RTX) or "")
    assert "TensorRT-RTX has no importer" in (meaning_of("no importer in TensorRT-RTX 1.7.1", RTX) or "")


def test_what_is_not_known_is_not_guessed():
    """A text without a meaning has none; nor has an error about something else."""
    assert meaning_of("all is well", TENSORRT) is None
    assert diagnose(ValueError("a value"), None, TENSORRT) is None


def test_a_misspelt_layer_of_a_network():
    """A user's function that misspells a method of the network is told the nearest."""

    class INetworkDefinition:
        def add_activation(self):
            pass

    with pytest.raises(AttributeError) as caught:
        _ = INetworkDefinition().add_activaton
    assert diagnose(caught.value, None, TENSORRT) == "did you mean network.add_activation?"
