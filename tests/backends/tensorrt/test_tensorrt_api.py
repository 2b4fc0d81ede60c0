"""Each name of TensorRT that our source uses is held against the real bindings of all 28 versions."""

from __future__ import annotations

import ast

import pytest
from bindings import FUNCTIONS, bindings, exists_in, members, sources, spans_of, uses, versions

from enginery.backends.tensorrt.versions import FEATURES

EVERYWHERE = frozenset(versions())


def complaints(code, *, in_versions=False):
    """Say what is wrong with the names that a source uses; empty where nothing is.

    Args:
        code: the source.
        in_versions: whether it is versions.py, which may use what only some versions have, if FEATURES says so.
    """
    found = []
    for use in uses(ast.parse(code)):
        having = EVERYWHERE if use.dotted in FUNCTIONS else members(use.dotted)
        if having is None:
            found.append(f"line {use.line}: no version has {use.dotted}")
        elif having != EVERYWHERE and use.dotted not in FEATURES:
            lacking = sorted(EVERYWHERE - having)
            found.append(f"line {use.line}: {use.dotted} is lacking in {lacking}: add it to FEATURES")
        elif having != EVERYWHERE and not in_versions and not use.by_name:
            found.append(f"line {use.line}: {use.dotted} is not in all versions: ask the Api for it by name")
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_what_is_used_exists_in_every_version(path):
    """Outside versions.py, a name exists in all versions or is asked for by name; there, FEATURES has its span."""
    assert complaints(path.read_text(encoding="utf-8"), in_versions=path.name == "versions.py") == []


@pytest.mark.parametrize("dotted", FEATURES)
def test_features_name_the_right_versions(dotted):
    """The versions that FEATURES gives are those whose bindings have it."""
    feature = FEATURES[dotted]
    assert spans_of(feature.tensorrt, feature.rtx) == members(dotted)


def test_there_is_much_to_look_at():
    """The walk finds what building and running use: it has not been blinded by a renamed variable."""
    found = {use.dotted for path in sources() for use in uses(ast.parse(path.read_text(encoding="utf-8")))}
    assert {
        "Builder.create_network", "Builder.build_serialized_network", "OnnxParser.parse_from_file",
        "IBuilderConfig.set_flag", "IBuilderConfig.builder_optimization_level", "BuilderFlag.TF32",
        "IOptimizationProfile.set_shape", "INetworkDefinition.get_input", "ITensor.is_shape_tensor",
    } <= found  # fmt: skip


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("config.hardware_compatibility_level = 1", "not in all versions"),
        ("self.config.builder_optimization_level = 1", "not in all versions"),
        ("trt.BuilderFlag.FP16", "not in all versions"),
        ("flag = api.module.BuilderFlag.STRIP_PLAN", "not in all versions"),
        ("trt.BuilderFlag.FP8", "add it to FEATURES"),
        ("builder.max_batch_size = 1", "add it to FEATURES"),
        ("hasattr(engine, 'device_memory_size')", "not in all versions"),
        ("api.find('IBuilderConfig.l2_limit_for_tiling')", "add it to FEATURES"),
        ("config.max_workspace", "no version has"),
        ("trt.BuilderFlag.FP17", "no version has"),
        ("api.need('BuilderFlag.FP17')", "no version has"),
        ("trt.Bilder(log)", "no version has"),
        ("network.get_input(0).foo; layer.precision = 1", "not in all versions"),
        ("self.cache.query(1)", "add it to FEATURES"),
    ],
)
def test_the_walk_finds_what_some_versions_lack(code, said):
    """A name that not every version has is found in whatever form it is written."""
    assert any(said in complaint for complaint in complaints(code)), complaints(code)


@pytest.mark.parametrize(
    "code",
    [
        "config.set_flag(trt.BuilderFlag.TF32)",
        "api.set(config, 'IBuilderConfig.builder_optimization_level', 3)",
        "api.find('BuilderFlag.FP16')",
        "self.builder.create_network(api.network_flags())",
        "spec.precision; record.profile; my_config.anything",
        "class Tensor: ...\ntensor.given",
        "from enginery.backends.tensorrt.tensors import Tensor\ntensor.given",
    ],
)
def test_the_walk_leaves_the_rest_alone(code):
    """What all versions have, what is asked for by name, and what is not TensorRT's are no matter."""
    assert complaints(code) == []


def test_spans_are_read_right():
    """A span covers the versions between its ends, of its own library."""
    assert exists_in("8.5-8.6 | -") == {"8.5", "8.6"}
    assert exists_in("10.16-11.0 | R1.4") == {"10.16", "11.0", "R1.4"}
    assert spans_of("10.9+", "") == {version for version in versions() if version in exists_in("10.9-11.4")}
    assert len(versions()) == 28
    assert members("Builder.reset") == EVERYWHERE
    assert members("Nothing") is None
    assert set(bindings()) == {"about", "versions", "classes"}
