"""Every backend in every sensible way, beside plain ONNX Runtime; what cannot be tried is a row that says why."""

from __future__ import annotations

import types

import pytest

from enginery import backends
from enginery.backends.base import Availability, Capabilities
from enginery.errors import EnvironmentSetupError, UnknownNameError, UsageError
from enginery.machine import describe_machine
from enginery.records import GraphRecord
from enginery.spec import OptimizeSpec, PrecisionPlan
from enginery.tuning.candidates import arrange_candidates, list_candidates

GRAPH = GraphRecord("g", (), (), 1, {}, 0, 0, None, {"": 17}, 8, "", ())


def backend(*, precisions=("fp32",), variants=({},), missing=""):
    """Make a backend that answers these."""
    return types.SimpleNamespace(
        probe=lambda: Availability(not missing, "1", missing, "run: pip install it" if missing else ""),
        capabilities=lambda _machine, _graph=None: Capabilities(frozenset(precisions), 20),
        variants=lambda _graph, _machine: variants,
    )


@pytest.fixture
def table(monkeypatch):
    """Replace the table of backends by three: two here, one missing."""
    made = {
        "onnxruntime": backend(variants=({}, {"threads": 1}, {"spin": False, "mode": "parallel"})),
        "swift": backend(precisions=("fp32", "bf16", "int8")),
        "gone": backend(missing="its library is not installed"),
    }
    rows = {name: backends.BackendRow(name, "", "") for name in made}
    monkeypatch.setattr(backends, "table", lambda: rows)
    monkeypatch.setattr(backends, "get", made.__getitem__)
    return made


def labels(probes=None, **spec):
    """List candidates; return their labels, which are unique, and themselves."""
    found = arrange_candidates(GRAPH, describe_machine(), OptimizeSpec(**spec), probes or {})
    assert len({one.label for one in found}) == len(found)
    return [one.label for one in found], found


def probe(**rows):
    """Return what the job `probe` would find: name to precisions, None where the backend is missing."""
    return {
        "backends": {
            name: {"candidate": True, "available": offered is not None, "precisions": offered or []}
            for name, offered in rows.items()
        }
    }


@pytest.mark.usefixtures("table")
def test_all_backends_in_all_variants():
    """Unnamed, every backend that is here, in each of its sets of options; the baseline first."""
    names, found = labels()
    assert names == [
        "onnxruntime, plain",
        "onnxruntime",
        "onnxruntime threads=1",
        "onnxruntime spin=false mode=parallel",
        "swift",
    ]
    assert [(one.role, one.design) for one in found] == [("baseline", "plain")] + [("candidate", "graph")] * 4
    assert found[2].options == {"threads": 1}


@pytest.mark.usefixtures("table")
def test_best_is_every_precision_that_a_backend_offers():
    """One row for each, in the order of the table of precisions."""
    names, found = labels(precision="best", backends=("swift",))
    assert names == ["onnxruntime, plain", "swift", "swift bf16", "swift int8"]
    assert [one.precision for one in found[1:]] == ["fp32", "bf16", "int8"]


def test_best_leaves_out_what_is_taken_by_name_alone(table):
    """A precision without kernels worth the name is tried where it is asked for, and else not."""
    offered = Capabilities(frozenset({"fp32", "fp16"}), 20, by_name=frozenset({"fp16"}))
    table["swift"].capabilities = lambda _machine, _graph=None: offered
    assert labels(precision="best", backends=("swift",))[0] == ["onnxruntime, plain", "swift"]
    assert labels(precision="fp16", backends=("swift",))[0] == ["onnxruntime, plain", "swift fp16"]


@pytest.mark.usefixtures("table")
def test_a_plan_is_every_candidates_plan():
    """Each candidate gets it; a backend that lacks one of its precisions says so; the baseline stays as it is."""
    plan = PrecisionPlan("fp32", {"a": "bf16"})
    names, found = labels(plan=plan, backends=("swift", "onnxruntime"))
    assert names == ["onnxruntime, plain", "swift bf16", "onnxruntime bf16"]
    assert [one.plan for one in found] == [None, plan, None]
    assert found[2].missing == "it cannot compute in bf16 here; it offers fp32"
    with pytest.raises(UsageError, match="fp16 was asked for, and the precision plan says bf16"):
        OptimizeSpec(precision="fp16", plan=plan)


@pytest.mark.usefixtures("table")
def test_a_precision_it_lacks_is_a_row_with_the_reason():
    """A backend that cannot compute in the precision says what it offers."""
    _, found = labels(precision="bf16")
    missing = {one.label: one.missing for one in found if one.missing}
    assert missing == {"onnxruntime bf16": "it cannot compute in bf16 here; it offers fp32"}


@pytest.mark.usefixtures("table")
def test_a_named_backend_that_is_missing_is_a_row_with_the_mend():
    """It is no exception: the others are tried."""
    names, found = labels(backends=("gone", "swift"))
    assert names == ["onnxruntime, plain", "gone", "swift"]
    assert found[1].missing == "its library is not installed; run: pip install it"


@pytest.mark.usefixtures("table")
def test_an_unknown_name_suggests():
    """A name that no environment knows is an error."""
    with pytest.raises(UnknownNameError, match=r"unknown backend 'swfit'; did you mean 'swift'\?"):
        labels(backends=("swfit",))


@pytest.mark.usefixtures("table")
def test_other_environments_add_plain_rows_where_they_tell_no_variants():
    """Each backend of another environment comes under the environment's name; an older Enginery tells no variants."""
    names, found = labels(
        {"old": probe(onnxruntime=["fp32"], gone=["fp32"], none=None)}, environments={"old": "/env/bin/python"}
    )
    assert names[-2:] == ["onnxruntime @old", "gone @old"]
    assert {(one.environment, one.python) for one in found[-2:]} == {("old", "/env/bin/python")}


@pytest.mark.usefixtures("table")
def test_other_environments_add_their_variants():
    """Another version is tried in every set of options that it tells; the version that is here only once more."""
    row = {"candidate": True, "available": True, "precisions": ["fp32"], "variants": [{}, {"narrow": "ends"}]}
    rows = {"backends": {"swift": {**row, "version": "1"}, "foreign": {**row, "version": "8.6.0"}}}
    older = {"backends": {"swift": {**row, "version": "0.9"}}}
    names, found = labels(
        {"same": rows, "old": older},
        backends=("swift", "foreign"),
        environments=dict.fromkeys(("same", "old"), "python"),
    )
    assert names[2:] == [
        "swift @same", "foreign @same", "foreign narrow=ends @same", "swift @old", "swift narrow=ends @old",
    ]  # fmt: skip
    assert [dict(one.options) for one in found[3:5]] == [{}, {"narrow": "ends"}]


@pytest.mark.usefixtures("table")
def test_a_backend_of_another_environment_is_no_failed_row_here():
    """Named and found elsewhere, it is not told as missing here; and a name that only the other knows is known."""
    probes = {"old": probe(gone=["fp32"], foreign=["fp32", "int8"])}
    names, found = labels(probes, backends=("gone", "foreign"), environments={"old": "python"}, precision="int8")
    assert names == ["onnxruntime, plain", "gone int8 @old", "foreign int8 @old"]
    assert found[1].missing == "it cannot compute in int8 here; it offers fp32"
    assert not found[2].missing


@pytest.mark.usefixtures("table")
def test_an_environment_that_cannot_answer_is_a_row():
    """A broken environment is told with its mend, and the run goes on."""
    error = EnvironmentSetupError("python holds no usable Enginery", mend="run: pip install it")
    names, found = labels({"old": error}, environments={"old": "python"})
    assert names[-1] == "@old"
    assert found[-1].missing == "python holds no usable Enginery; run: pip install it"


def test_environments_are_asked_in_workers(tmp_path):
    """The real table, and an interpreter that does not exist: one row more."""
    spec = OptimizeSpec(backends=("null",), environments={"lost": str(tmp_path / "python")})
    found = list_candidates(GRAPH, describe_machine(), spec, folder=tmp_path)
    assert [one.label for one in found] == ["onnxruntime, plain", "null", "@lost"]
    assert "there is no interpreter" in found[-1].missing


def test_a_backend_that_only_builds_here_is_no_candidate(table):
    """It is not tried by itself; where it is named, its row has the reason. Nothing is built for nothing."""
    only_builds = Availability(available=True, version="1", reason="no GPU is here", mend="go elsewhere", runs=False)
    table["ahead"] = types.SimpleNamespace(**{**vars(table["swift"]), "probe": lambda: only_builds})
    backends.table()["ahead"] = backends.BackendRow("ahead", "", "")
    names, _ = labels()
    assert "ahead" not in names
    assert "ahead" not in backends.available()
    _, found = labels(backends=("ahead",))
    assert {one.label: one.missing for one in found if one.missing} == {"ahead": "no GPU is here; go elsewhere"}
