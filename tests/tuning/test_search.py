"""The search raises what harms until the bounds hold, then lowers what need not stay, and remembers what it saw."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from enginery.errors import DataError
from enginery.records import DangerRecord, GroupSensitivityRecord, NodeSensitivityRecord, SensitivityRecord
from enginery.spec import PrecisionPlan
from enginery.tuning.journal import Journal
from enginery.tuning.search import Limits, Outcome, search_plan
from enginery.tuning.words import kept_words

NAMES = [f"n{at:03}" for at in range(100)]


def ranking(certain=(), likely=(), harmful=()):
    """Make a ranking of a hundred nodes in ten groups; those of `harmful` come first."""
    danger = dict.fromkeys(certain, "certain") | dict.fromkeys(likely, "likely")
    rows = [
        NodeSensitivityRecord(
            name, "Mul", f"blocks.{at // 10}", f"blocks.{at // 10}", 1e5,
            (DangerRecord("overflow", danger[name], name, "values exceed 65504"),) if name in danger else (), 1e-4,
        )
        for at, name in enumerate(NAMES)
    ]  # fmt: skip
    groups = [
        GroupSensitivityRecord(f"blocks.{at}", tuple(NAMES[10 * at : 10 * at + 10]), 1e-4, 1.0) for at in range(10)
    ]
    groups.sort(key=lambda group: group.name not in harmful)
    return SensitivityRecord("fp16", 1.0, 100, 100, tuple(rows), tuple(groups), 100, 1, "", 0.0)


class Needs:
    """A trial that holds where all of some nodes are kept."""

    def __init__(self, *names):
        self.names, self.tried = set(names), []

    def __call__(self, plan):
        self.tried.append(set(plan.nodes))
        holds = self.names <= set(plan.nodes)
        return Outcome(holds, "" if holds else "too far", 0.0 if holds else 1.0, 1.0, 0.0)


def test_nothing_is_raised_where_the_fastest_plan_holds():
    """One trial of the uniform plan of each kind is enough."""
    simulate, build = Needs(), Needs()
    found = search_plan(ranking(certain=["n005"]), simulate, build)
    assert found.plan == PrecisionPlan("fp16")
    assert [step.what for step in found.steps] == ["simulated", "built"]


@pytest.mark.parametrize(
    ("needed", "known"),
    [
        (["n005", "n006"], {"certain": ["n005", "n006", "n007"]}),
        (["n005", "n006"], {"likely": ["n005"]}),
        (["n042"], {"harmful": ["blocks.4"]}),
        (["n001", "n099"], {}),
    ],
)
def test_just_what_must_stay_is_kept(needed, known):
    """Whether it is a danger, a harmful group or nothing that was ranked: the smallest set is found."""
    found = search_plan(ranking(**known), Needs(*needed), None, limits=Limits(simulated=200))
    assert sorted(found.plan.nodes) == needed
    assert set(found.plan.nodes.values()) == {"fp32"}
    assert not found.unfinished


def test_a_kept_node_has_its_own_reason():
    """What came of lowering it alone, or the danger that was seen; the group that it came with says less."""
    found = search_plan(ranking(certain=["n005"], harmful=["blocks.4"]), Needs("n005", "n042"), None)
    assert found.plan.reasons == {"n005": "values exceed 65504", "n042": "lower as well: too far"}
    assert found.reasons == found.plan.reasons


def test_the_backend_decides():
    """What holds in the simulation and not on the backend is raised further; the backend's own need is kept."""
    build = Needs("n005", "n042")
    found = search_plan(ranking(certain=["n005"], harmful=["blocks.4"]), Needs("n005"), build, limits=Limits(built=64))
    assert sorted(found.plan.nodes) == ["n005", "n042"]
    assert build.tried[0] == {"n005"}
    built = [step for step in found.steps if step.what == "built"]
    assert not built[0].holds
    assert built[0].reason == "too far"


def test_what_a_library_spares_by_chance_stays():
    """A value that its type cannot hold stays higher, though the backend would get away with it."""
    found = search_plan(ranking(certain=["n005"], likely=["n010"]), Needs("n005", "n010"), Needs())
    assert sorted(found.plan.nodes) == ["n005"]


def test_no_plan_holds():
    """Where even float32 misses the bounds no plan comes out; each trial is a step."""
    found = search_plan(ranking(), Needs("not a node"), None)
    assert found.plan is None
    assert len(found.steps) > 2


def test_limits_end_it():
    """A search that runs out of trials hands on what held, and says that it was not done."""
    found = search_plan(ranking(), Needs("n001", "n099"), None, limits=Limits(simulated=8))
    assert found.unfinished
    assert {"n001", "n099"} <= set(found.plan.nodes)
    assert search_plan(ranking(), Needs("n099"), None, limits=Limits(seconds=0.0)).plan is None


def test_int8_nodes_are_dropped_from_their_plan():
    """Of a quantised plan the kept nodes lose INT8, and the rest keeps its precision."""
    base = PrecisionPlan("fp16", dict.fromkeys(NAMES, "int8"))

    def trial(plan):
        return Outcome("n042" not in plan.nodes, "too far", 0.0, 1.0, 0.0)

    found = search_plan(ranking(harmful=["blocks.4"]), trial, None, base=base)
    assert found.kept == ("n042",)
    assert found.reasons == {"n042": "lower as well: too far"}
    assert len(found.plan.nodes) == 99
    assert found.plan.precision == "fp16"


def test_the_words():
    """Nodes of one kind stand together, with numbers of modules as stars and the reason."""
    kept = ["n005", "n015", "n025"]
    rank = ranking(certain=kept)
    words = kept_words(PrecisionPlan("fp16", dict.fromkeys(kept, "fp32")), kept, rank)
    assert words == "FP16 except 3 nodes kept in FP32 (blocks.* Mul: values exceed 65504)"
    assert kept_words(PrecisionPlan("fp16"), [], rank) == "FP16 throughout"
    idle = kept_words(PrecisionPlan("fp16"), [*kept, "n033", "n034"], rank, slow=["n033", "n034"])
    assert idle.endswith("(blocks.* Mul: values exceed 65504; 2 no faster lower)")


def test_a_journal_remembers(tmp_path):
    """What was measured is known to the next run; a line that a kill cut short is measured again."""
    first = Journal(tmp_path / "state")
    first.keep({"plan": "a"}, Outcome(holds=True, reason="", error=float("inf"), cosine=None, seconds=1.0))
    first.keep({"plan": "b"}, {"error": 1.0})
    (file,) = (tmp_path / "state").iterdir()
    file.write_text(file.read_text() + '{"key": "c", "fou')
    again = Journal(tmp_path / "state")
    assert len(again) == 2
    assert again.recall({"plan": "a"})["error"] == "Infinity"
    assert again.recall({"plan": "c"}) is None
    again.keep({"plan": "c"}, 3)
    assert all(json.loads(line) for line in file.read_text().splitlines())
    assert len(Journal(tmp_path / "state")) == 3
    file.write_text('{"other": 1}\n')
    with pytest.raises(DataError, match="line 1 of"):
        Journal(tmp_path / "state")


@pytest.mark.slow
def test_a_killed_search_goes_on(tmp_path):
    """After a kill, the same command finds what was measured, and ends with what an undisturbed one ends with."""
    digits = Path(__file__).parents[2] / "examples" / "digits"
    command = [
        sys.executable, "-m", "enginery", "optimize", digits / "digits.onnx", "--shapes", "image=1..32..32x1x8x8",
        "--data", digits / "heldout.npz", "--calibration", digits / "heldout.npz", "--precision", "int8",
        "--backend", "onnxruntime", "--max-error", "0.004", "--resume", tmp_path / "state", "--json",
    ]  # fmt: skip
    lines = tmp_path / "state" / "search.jsonl"
    process = subprocess.Popen(
        [*command, "-o", tmp_path / "a.engine"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and (not lines.exists() or len(lines.read_text().splitlines()) < 6):
        time.sleep(0.05)
    process.kill()
    process.wait()
    measured = len(lines.read_text().splitlines())
    assert measured >= 6
    assert not (tmp_path / "a.engine").exists()
    again = subprocess.run([*command, "-o", tmp_path / "b.engine"], capture_output=True, text=True, check=True)
    (search,) = json.loads(again.stdout)["searches"]
    known = [step["again"] for step in search["steps"]]
    assert known[: measured - 2] == [True] * (measured - 2)
    assert not all(known)
    assert search["found"]
    assert (tmp_path / "b.engine" / "pareto.svg").exists()
