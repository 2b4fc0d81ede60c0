"""trtexec's flags: read however they are spelt, refused with a mend, told in our terms; no engine is built here."""

from __future__ import annotations

import re

import numpy as np
import pytest

from enginery.cli.flags import Given, read_flags, read_number
from enginery.cli.main import main
from enginery.cli.trtexec import meanings, tell_defaults
from enginery.cli.trtexec_flags import TRTEXEC
from enginery.cli.trtexec_request import parse_bytes, parse_named, parse_sizes, request
from enginery.errors import DataError, InputShapeError, UnknownNameError, UsageError
from enginery.records import TensorInfo
from enginery.spec import Shape
from enginery.trtexec_queries import feeds_of, read_raw
from enginery.trtexec_spec import Library, TrtexecSpec, defaults_of, with_defaults

RTX = "tensorrt_rtx"


def asked(*words: str) -> TrtexecSpec:
    """Return what a line asks for."""
    return request(read_flags(TRTEXEC, words)[0])


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Work in an empty folder, whatever the library is called in this environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINERY_TRTEXEC_BACKEND", RTX)


@pytest.mark.parametrize(
    "words",
    [["--onnx=m.onnx"], ["-onnx=m.onnx"], ["--onnx", "m.onnx"], ["-onnx", "m.onnx"]],
)
def test_a_flag_is_read_however_it_is_spelt(words):
    """One dash or two, joined or apart."""
    assert asked(*words).onnx == "m.onnx"


def test_switches_may_have_a_value():
    """`--flag=false` is as if it were left out, and says so."""
    assert asked("--skipInference=false").measure is True
    assert asked("--skipInference=1").measure is False
    assert asked("--buildOnly").measure is False
    with pytest.raises(UsageError, match="it is a switch"):
        asked("--fp16=maybe")


def test_a_value_may_begin_with_a_dash():
    """Sources of kernels are taken away with one; another flag is no value."""
    assert (
        asked("--tacticSources", "-CUBLAS,+JIT_CONVOLUTIONS").options["tactic_sources"] == "-CUBLAS,+JIT_CONVOLUTIONS"
    )
    with pytest.raises(UsageError, match="--onnx has no value; write it as --onnx=FILE"):
        asked("--onnx", "--fp16")


@pytest.mark.parametrize(
    ("word", "near"),
    [("--saveEngin=x", "--saveEngine=FILE"), ("--minshapes=x:1", "--minShapes=SPEC"), ("--fp61", "--fp16")],
)
def test_an_unknown_flag_suggests_the_nearest(word, near):
    """Case and letters may be wrong."""
    with pytest.raises(UnknownNameError, match=re.escape(f"did you mean {near}?")):
        asked(word)


@pytest.mark.parametrize("flag", [flag for flag in TRTEXEC.flags if flag.mend], ids=lambda flag: flag.name)
def test_a_flag_that_cannot_be_honoured_is_refused(flag):
    """It names itself, the reason and the mend; nothing is ignored in silence."""
    with pytest.raises(UsageError) as caught:
        asked(f"{flag.spelt.partition('=')[0]}={'x' if flag.takes else 'true'}")
    assert caught.value.message == f"{flag.spelt.partition('=')[0]} of trtexec: {flag.here}"
    assert caught.value.mend == flag.mend


VALUES = {
    "percentile": "50,99", "layerPrecisions": "*:fp16", "precisionConstraints": "obey", "memPoolSize": "workspace:1G",
    "hardwareCompatibilityLevel": "ampere+", "sparsity": "enable", "profilingVerbosity": "detailed",
    "inputIOFormats": "fp32:chw", "outputIOFormats": "chw", "weightStreamingBudget": "1G", "loadInputs": "x:a.bin",
    "shapes": "x:2x3", "optShapes": "x:4x3", "minShapes": "x:1x3", "maxShapes": "x:8x3", "tacticSources": "-CUBLAS",
    "builderOptimizationLevel": "5", "timingCacheFile": "t.cache", "backend": RTX, "profile": "0",
}  # fmt: skip
WITH = {
    "minShapes": ["--optShapes=x:4x3", "--maxShapes=x:8x3"], "maxShapes": ["--optShapes=x:4x3", "--minShapes=x:1x3"],
    "layerPrecisions": ["--precisionConstraints=obey"],
}  # fmt: skip
UNCHANGED = {
    "help", "json", "profile", "explicitBatch", "precisionConstraints", "profilingVerbosity", "separateProfileRun",
    "backend",
}  # fmt: skip


@pytest.mark.parametrize("flag", [flag for flag in TRTEXEC.flags if not flag.mend], ids=lambda flag: flag.name)
def test_every_flag_that_is_taken_changes_what_is_asked(flag):
    """A flag that changes nothing says in its meaning that what it asks for is always so, or only prints."""
    value = VALUES.get(flag.name, "7")
    found = asked(*WITH.get(flag.name, []), f"--{flag.name}={value}" if flag.takes else f"--{flag.name}")
    plain = asked(*(["--optShapes=x:4x3"] if flag.name in ("minShapes", "maxShapes") else WITH.get(flag.name, [])))
    if flag.name in UNCHANGED:
        assert found == plain
    else:
        assert found != plain
    for alias in flag.aliases:
        words = [f"--{alias}={value}" if flag.takes else f"--{alias}"]
        assert asked(*WITH.get(flag.name, []), *words) == found


def test_a_flag_twice_and_plain_words_are_refused():
    """Two models, or a path without a flag."""
    with pytest.raises(UsageError, match="--onnx is given twice"):
        asked("--onnx=a", "--onnx=b")
    with pytest.raises(UsageError, match=r"takes no plain words, and here is 'm\.onnx'"):
        asked("m.onnx", "--fp16")


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ([], "tf32"), (["--noTF32"], "fp32"), (["--fp16"], "fp16"), (["--bf16"], "bf16"), (["--int8"], "int8"),
        (["--fp8"], "fp8"), (["--best"], "best"), (["--int8", "--fp16"], "int8"),
        (["--precisionConstraints=obey", "--layerPrecisions=*:fp16,mm:fp32"], "fp16"),
    ],
)  # fmt: skip
def test_precision_is_one_word(words, precision):
    """The default of trtexec allows TF32."""
    assert asked(*words).precision == precision


def test_precisions_that_disagree_are_refused():
    """int8 with fp16 says what the rest is; other pairs say nothing that a graph could be."""
    assert asked("--int8", "--fp16").rest == "fp16"
    with pytest.raises(UsageError, match="--fp16, --bf16 are given together"):
        asked("--fp16", "--bf16")
    with pytest.raises(UsageError, match="without --precisionConstraints"):
        asked("--layerPrecisions=*:fp16")
    with pytest.raises(UsageError, match="is 'prefer'; give --precisionConstraints=obey"):
        asked("--precisionConstraints=prefer")
    with pytest.raises(UnknownNameError, match="unknown precision 'fp61'; did you mean 'fp16'"):
        asked("--precisionConstraints=obey", "--layerPrecisions=mm:fp61")
    assert asked("--precisionConstraints=obey", "--layerPrecisions=mm:fp16").nodes == {"mm": "fp16"}


def test_shapes_become_profiles():
    """Three flags make ranges, --optShapes alone a fixed size, --shapes alone too."""
    found = asked("--minShapes=x:1x3,m:1x8", "--optShapes=x:4x3,m:2x8", "--maxShapes=x:8x3,m:4x8", "--shapes=x:2x3")
    assert {name: str(shape) for name, shape in found.shapes.items()} == {"x": "1..4..8x3", "m": "1..2..4x8"}
    assert found.at == {"x": (2, 3)}
    assert asked("--optShapes=x:4x3").shapes == {"x": Shape.fixed((4, 3))}
    assert asked("--shapes='In:0':4x3").shapes == {"In:0": Shape.fixed((4, 3))}


def test_several_profiles_are_held_by_the_first():
    """Profile 0 takes all sizes and is tuned for its own; the others are narrower."""
    found = asked(
        "--profile=0", "--minShapes=x:1x3", "--optShapes=x:2x3", "--maxShapes=x:4x3",
        "--profile=1", "--minShapes=x:8x3", "--optShapes=x:16x3", "--maxShapes=x:32x3",
    )  # fmt: skip
    assert str(found.shapes["x"]) == "1..2..32x3"
    assert [str(profile["x"]) for profile in found.profiles] == ["8..16..32x3"]
    with pytest.raises(UsageError, match="number them 0, 1, 2"):
        asked("--profile=1", "--optShapes=x:2x3")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minShapes=x:1"], "of a profile only --minShapes is given"),
        (["--minShapes=x:1", "--optShapes=x:2x2", "--maxShapes=x:3"], "give the same inputs and ranks"),
        (["--minShapes=x:4", "--optShapes=x:2", "--maxShapes=x:8"], "not in the order min <= opt <= max"),
        (["--minShapes=x:1,m:1", "--optShapes=x:2", "--maxShapes=x:8,m:1"], "input 'm' is not in --optShapes"),
        (["--optShapes=x=4x3"], "names no input"),
        (["--optShapes=x:4by3"], "is no shape for 'x'"),
        (["--memPoolSize=dlaSRAM:1M"], "only the pool workspace"),
        (["--workspace=0"], "--workspace is '0'; give a whole number, 1 or more"),
        (["--iterations=many"], "--iterations is 'many'"),
        (["--duration=-1"], "give a number, 0 or more"),
        (["--percentile=101"], "give numbers from 0 to 100"),
        (["--sparsity=force"], "unknown value of --sparsity: 'force'"),
        (["--inputIOFormats=fp16:chw32"], "tensors are linear here"),
        (["--useCudaGraph", "--noCudaGraph"], "are given together"),
        (["--weightStreamingBudget=50%"], "give -1 for TensorRT's own choice"),
        (["--profilingVerbosity=none"], "leave it out"),
    ],
)
def test_values_that_cannot_be_honoured_are_refused(words, said):
    """The message has the value, the mend how to write it."""
    with pytest.raises(UsageError, match=re.escape(said)):
        asked(*words)


def test_sizes_are_in_mib_unless_said_otherwise():
    """Both flags of the workspace; the last stands."""
    assert asked("--workspace=512").options == {"workspace_mib": 512}
    assert asked("--memPoolSize=workspace:4096").options == {"workspace_mib": 4096}
    assert asked("--memPoolSize=workspace:2G").options == {"workspace_mib": 2048}
    assert [parse_bytes(text) for text in ("1", "0.5M", "1KiB", "3B")] == [2**20, 2**19, 1024, 3]
    with pytest.raises(UsageError, match="'4T' is no size"):
        parse_bytes("4T")
    assert parse_sizes("s:scalar,t:") == {"s": (), "t": ()}
    with pytest.raises(UsageError, match="input 'x' is given twice"):
        parse_named("x:1,x:2", "input")


def test_weights_and_files_become_options(tmp_path):
    """Stripping implies refitting; paths become absolute, for a worker has a folder of its own."""
    assert asked("--stripWeights").options == {"strip_weights": True, "refit": "identical"}
    assert asked("--stripWeights", "--refit").options == {"strip_weights": True, "refit": "yes"}
    assert asked("--stripAllWeights").options == {"strip_weights": True, "refit": "yes"}
    assert asked("--plugins=a.so", "--staticPlugins=b.so").options["plugins"] == f"{tmp_path}/a.so,{tmp_path}/b.so"
    assert asked("--timingCacheFile=t").options["timing_cache"] == f"{tmp_path}/t"
    assert asked("--noBuilderCache").options["timing_cache"] == "off"
    assert asked("--vc", "--excludeLeanRuntime").options == {"version_compatible": True, "exclude_lean_runtime": True}
    assert asked("--weightStreamingBudget", "-1").options == {"weight_budget_mib": -1}


def test_every_option_that_flags_set_is_the_backends():
    """A renamed option of the backend fails here, not at the user's."""
    from enginery.backends.tensorrt.options import read_options

    for flag in TRTEXEC.flags:
        if not flag.mend:
            value = VALUES.get(flag.name, "7")
            words = [*WITH.get(flag.name, []), f"--{flag.name}={value}" if flag.takes else f"--{flag.name}"]
            read_options(asked(*words).options)


def test_number_says_what_it_wants():
    """A whole number has a least value."""
    flag = next(flag for flag in TRTEXEC.flags if flag.name == "avgRuns")
    assert read_number(Given(flag, "3"), 1) == 3
    with pytest.raises(UsageError, match="--avgRuns is 'inf'; give a number, 0 or more"):
        read_number(Given(flag, "inf"), 0, whole=False)


def test_each_flag_is_told_once_in_our_terms():
    """Versions that have a flag no more are named, and why."""
    given, _ = read_flags(TRTEXEC, ["--fp16", "--minShapes=x:1", "--minShapes=m:1", "--workspace=1", "--useCudaGraph"])
    eleven = meanings(given, Library("tensorrt", "11.4.0", "TensorRT"))
    assert eleven[0] == "--fp16: precision fp16 for the whole graph (trtexec 11 has no such flag: the graph is typed)"
    assert len(eleven) == 4
    assert eleven[2].endswith("(trtexec 11 has no such flag)")
    eight = meanings(given, Library("tensorrt", "8.6.1", "TensorRT"))
    assert not any("has no such flag" in line for line in eight)
    rtx = meanings(given, Library(RTX, "1.7.1", "TensorRT-RTX"))
    assert rtx[0].endswith("(TensorRT-RTX has no such flag: the graph is typed)")
    off, _ = read_flags(TRTEXEC, ["--fp16=false"])
    assert meanings(off, Library("tensorrt", "8.6.1", "TensorRT")) == ("--fp16=false: as if it were left out",)


def test_a_flag_that_does_nothing_in_its_line_says_so():
    """Flags of the build where a plan is loaded, flags of measuring where none is measured."""
    given, _ = read_flags(TRTEXEC, ["--fp16", "--iterations=3", "--shapes=x:1", "--exportTimes=t"])
    library = Library("tensorrt", "8.6.1", "TensorRT")
    loads = meanings(given, library, loads=True)
    assert loads[0] == "--fp16: nothing, for a plan is loaded here and none is built"
    assert not any("nothing" in line for line in loads[1:])
    builds = meanings(given, library, measures=False)
    idle = [line.partition(":")[0] for line in builds if line.endswith("nothing, for this line only builds")]
    assert idle == ["--iterations", "--exportTimes"]


def test_defaults_are_those_of_the_installed_version():
    """TensorRT 11 turned three defaults around; what no flag names is told."""
    late, early = defaults_of(11), defaults_of(8)
    assert (late.cuda_graph, late.spin, late.transfers) == (True, True, False)
    assert (early.cuda_graph, early.spin, early.transfers) == (False, False, True)
    said = tell_defaults(asked("--useCudaGraph"), Library("tensorrt", "11.1.0", "TensorRT"))
    assert said.startswith("no flag names spin-wait, data transfers: as trtexec 11 measures (CUDA graph on")
    assert "trtexec 8 and 10: CUDA graph off, spin-wait off, data transfers on" in said
    assert tell_defaults(asked("--useCudaGraph", "--useSpinWait", "--noDataTransfers"), Library("x", "1", "X")) == ""
    filled = with_defaults(asked("--noCudaGraph"), late)
    assert (filled.cuda_graph, filled.spin, filled.transfers) == (False, True, False)


def test_help_lists_every_flag(capsys):
    """The text is the table."""
    assert main(["trtexec", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in TRTEXEC.flags:
        assert flag.spelt in text
        assert flag.here in text
    assert main(["trtexec"]) == 2


def test_inputs_are_read_or_drawn(tmp_path):
    """Raw bytes in the input's own type; sizes from --shapes, else what the profile is tuned for."""
    info = TensorInfo("x", "float32", ("batch", 2), Shape.parse("1..4..8x2"))
    assert feeds_of(asked("--onnx=m"), (info,))["x"].shape == (4, 2)
    assert feeds_of(asked("--shapes=x:3x2"), (info,))["x"].shape == (3, 2)
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    values.tofile(tmp_path / "x.bin")
    read = feeds_of(asked("--shapes=x:3x2", "--loadInputs=x:x.bin"), (info,))["x"]
    assert read.tolist() == values.tolist()
    with pytest.raises(UsageError, match="unknown input 'z'"):
        feeds_of(asked("--loadInputs=z:x.bin"), (info,))


def test_inputs_that_do_not_fit_are_refused(tmp_path):
    """A size outside the profile, a file of another length, no file."""
    info = TensorInfo("x", "float32", ("batch", 2), Shape.parse("1..4..8x2"))
    with pytest.raises(InputShapeError, match=r"--shapes gives input 'x' 9x2, and the engine takes 1\.\.4\.\.8x2"):
        feeds_of(asked("--shapes=x:9x2"), (info,))
    (tmp_path / "x.bin").write_bytes(b"1234")
    with pytest.raises(DataError, match="holds 4 bytes, and input 'x' of float32 1x2 has 8"):
        read_raw(tmp_path / "x.bin", info, (1, 2))
    with pytest.raises(DataError, match="cannot be read"):
        read_raw(tmp_path / "none.bin", info, (1, 2))
