"""A worker's crash, hang, memory and noise stay in the worker; what a job raises arrives."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import enginery
from enginery import processes, staging
from enginery.errors import (
    BuildError,
    EngineryError,
    EnvironmentSetupError,
    InputNameError,
    UnknownNameError,
    WorkerCrashError,
    WorkerError,
    WorkerMemoryError,
    WorkerTimeoutError,
)
from enginery.progress import Advance
from enginery.worker import LOG, Worker

SOURCES = Path(enginery.__file__).parents[1]

JOBS = """
import ctypes, logging, os, signal, subprocess, sys, time
from pathlib import Path
from enginery import errors, jobs, progress, storage

class OurBuildError(errors.BuildError):
    pass

def echo(state, arguments):
    return {**arguments, "nan": float("nan"), "path": Path("a")}

def count(state, arguments):
    state["calls"] = state.get("calls", 0) + 1
    return state["calls"]

def crash(state, arguments):
    print("about to abort")
    os.abort()

def leave(state, arguments):
    sys.exit(3)

def hang(state, arguments):
    print("still here")
    Path(arguments["pid_file"]).write_text(str(os.getpid())) if "pid_file" in arguments else None
    time.sleep(60)

def grow(state, arguments):
    state["kept"] = []
    for _ in range(10_000):
        state["kept"].append(bytearray(os.urandom(1)) * (4 << 20))
        time.sleep(0.005)

def noise(state, arguments):
    ctypes.CDLL(None).puts(b"0001-noise.result.json")
    os.write(1, b"\\xff\\xfe not text\\n")
    os.system("echo from a shell")
    print(sys.stdin.read())
    return "heard"

def refuse(state, arguments):
    raise errors.InputNameError("input 'x' is missing", mend="give 'x'")

def refuse_foreign(state, arguments):
    raise OurBuildError("no kernel")

def stumble(state, arguments):
    return [][1]

def unplain(state, arguments):
    return object()

def starve(state, arguments):
    raise MemoryError

def half_build(state, arguments):
    with storage.new_folder(Path(arguments["output"])) as staging:
        (staging / "model").write_text("half")
        Path(arguments["started"]).touch()
        time.sleep(60)

def child(state, arguments):
    return subprocess.Popen(["sleep", "60"]).pid

def variables(state, arguments):
    return {"cwd": os.getcwd(), "path": sys.path, "group": os.getpgid(0), "pid": os.getpid()}

def announce(state, arguments):
    for at in range(1, 4):
        progress.announce(at / 4, f"phase {at}", 9.0)
    if arguments.get("then") == "crash":
        logging.getLogger("enginery.tensorrt").info("ERROR: the builder's last words")
        os.kill(os.getpid(), signal.SIGSEGV)
    if arguments.get("then") == "hang":
        time.sleep(60)
    return "told"

for job in (announce, echo, count, crash, leave, hang, grow, noise, refuse, refuse_foreign, stumble, unplain, starve,
            half_build, child, variables):
    jobs.JOBS[job.__name__] = job
"""
ENTRY = ("-c", JOBS + "\njobs.main()")


@pytest.fixture
def worker(tmp_path):
    """Start a worker that knows the jobs above too."""
    with Worker("test", folder=tmp_path / "worker", entry=ENTRY) as started:
        yield started


def is_alive(pid):
    """Say whether a process runs; one that is dead and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, what, limit_s=20.0):
    """Wait until a condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.01)


def test_plain_data_goes_there_and_back(worker):
    """Arguments arrive, results come back as plain data, and both stay as files."""
    result = worker.call("echo", {"text": "ü", "where": Path("/x"), "sizes": (1, 2)}, limit_s=30)
    assert result == {"text": "ü", "where": "/x", "sizes": [1, 2], "nan": "NaN", "path": "a"}
    assert json.loads((worker.folder / "0001-echo.json").read_text())["job"] == "echo"
    assert json.loads((worker.folder / "0001-echo.result.json").read_text())["result"] == result


def test_state_lives_between_jobs(worker):
    """One process takes all jobs, and what it holds stays warm."""
    assert [worker.call("count", {}, limit_s=30) for _ in range(3)] == [1, 2, 3]


def test_unknown_job_suggests(worker):
    """A job that is in no table is refused, by its nearest name, and the worker goes on."""
    with pytest.raises(UnknownNameError, match=r"unknown job 'verfy'; did you mean 'verify'\?"):
        worker.call("verfy", {}, limit_s=30)
    assert worker.call("count", {}, limit_s=30) == 1


def test_a_job_is_never_a_module_path(worker):
    """Names that would import something are names like any other: unknown."""
    with pytest.raises(UnknownNameError, match="unknown job 'os:getcwd'"):
        worker.call("os:getcwd", {}, limit_s=30)


def test_errors_cross_with_message_and_mend(worker):
    """What a job raises is raised here, as the class it was; the worker goes on."""
    with pytest.raises(InputNameError) as caught:
        worker.call("refuse", {}, limit_s=30)
    assert (caught.value.message, caught.value.mend) == ("input 'x' is missing", "give 'x'")
    assert worker.call("count", {}, limit_s=30) == 1


def test_a_foreign_class_crosses_as_its_nearest_known_base(worker):
    """A class that only the worker knows arrives as the class of errors.py that it extends."""
    with pytest.raises(BuildError, match="no kernel") as caught:
        worker.call("refuse_foreign", {}, limit_s=30)
    assert type(caught.value) is BuildError


def test_other_exceptions_are_worker_errors_with_a_traceback(worker):
    """An unexpected exception names its type and message, and the log's end shows where."""
    with pytest.raises(WorkerError, match=r"'stumble' failed with IndexError: list index out of range") as caught:
        worker.call("stumble", {}, limit_s=30)
    assert "in stumble" in caught.value.message
    assert worker.call("count", {}, limit_s=30) == 1


def test_a_result_that_is_no_plain_data_is_an_error(worker):
    """The pipe does not break on a result that JSON cannot hold."""
    with pytest.raises(WorkerError, match="object is no plain data"):
        worker.call("unplain", {}, limit_s=30)


def test_a_memory_error_in_a_job_is_named(worker):
    """Python's own MemoryError arrives as what it is."""
    with pytest.raises(WorkerMemoryError, match="not enough memory for 'starve'"):
        worker.call("starve", {}, limit_s=30)


def test_crash_names_the_signal_and_shows_the_log(worker):
    """A job that aborts is a WorkerCrashError with the signal and the log's last lines."""
    with pytest.raises(WorkerCrashError, match="worker 'test' died of SIGABRT while it did 'crash'") as caught:
        worker.call("crash", {}, limit_s=30)
    assert 'about to abort\nFatal Python error: Aborted\n  File "<string>", line' in caught.value.message
    assert "worker_loop" not in caught.value.message
    with pytest.raises(WorkerCrashError, match="is not running"):
        worker.call("count", {}, limit_s=30)


def test_killed_from_outside_hints_at_memory(worker):
    """A SIGKILL that is not ours is most often the system's, short of memory."""
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashError, match=r"died of SIGKILL.*run out of memory"):
        worker.call("count", {}, limit_s=30)


def test_leaving_is_a_crash(worker):
    """A library that calls exit() has ended the worker, and the exit code is told."""
    with pytest.raises(WorkerCrashError, match="ended with exit code 3"):
        worker.call("leave", {}, limit_s=30)


def test_hang_is_ended_at_the_limit(worker):
    """A job past its limit is killed, and the error says which limit and what was last heard."""
    pid = worker.pid
    with pytest.raises(WorkerTimeoutError, match=r"did not finish 'hang' within 0.5 s; its log ends with:\nstill here"):
        worker.call("hang", {}, limit_s=0.5)
    assert not is_alive(pid)


def test_memory_blow_up_is_ended_at_the_limit(tmp_path):
    """A job that grows past the limit is killed, and the error has both figures."""
    with (
        Worker("big", folder=tmp_path, memory_limit_bytes=200 << 20, entry=ENTRY) as big,
        pytest.raises(WorkerMemoryError, match=r"held \d+ MiB while it did 'grow', its limit is 200 MiB"),
    ):
        big.call("grow", {}, limit_s=60)


def test_noise_does_not_break_the_protocol(worker):
    """Whatever a library prints, from C, from a child or as garbage, goes to the log; stdin is empty."""
    assert worker.call("noise", {}, limit_s=30) == "heard"
    worker.close()
    log = worker.log_tail()
    assert "0001-noise.result.json" in log
    assert "from a shell" in log
    assert "not text" in log


def test_log_tail_counts_lines(worker):
    """Only the last lines are shown, and blank ones are left out."""
    (worker.folder / LOG).write_text("\n".join(f"line {at}\n" for at in range(50)))
    assert worker.log_tail(2) == "line 48\nline 49"


def test_a_killed_build_leaves_nothing_half_written(worker, tmp_path):
    """The staging folder of a build that was killed is removed; what others write beside it stays."""
    output, started = tmp_path / "model.engine", tmp_path / "started"
    with staging.staging(output) as others:
        with pytest.raises(WorkerTimeoutError):
            worker.call("half_build", {"output": output, "started": started}, limit_s=1.0)
        assert started.exists()
        assert staging.stagings(output) == {others}
    assert not (tmp_path / "model.engine").exists()


def test_children_of_the_worker_end_with_it(worker):
    """Its whole process group is killed, so that nothing it started lives on."""
    pid = worker.call("child", {}, limit_s=30)
    assert is_alive(pid)
    worker.close()
    wait_for(lambda: not is_alive(pid), "the worker's child is gone")


def test_it_works_in_its_own_folder_and_group(worker):
    """Ctrl-C in a terminal reaches the parent's group only, and litter lands in the worker's folder."""
    found = worker.call("variables", {}, limit_s=30)
    assert found["group"] == found["pid"] != os.getpgid(0)
    assert found["cwd"] == str(worker.folder)


def test_on_wait_is_called_and_its_error_ends_the_worker(worker):
    """The caller can follow a long job; what it raises there, an interrupt above all, kills the worker."""
    calls = []

    def follow():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    pid = worker.pid
    with pytest.raises(KeyboardInterrupt):
        worker.call("hang", {}, limit_s=30, on_wait=follow)
    assert len(calls) == 3
    assert not is_alive(pid)


def test_closing_twice_is_fine(worker):
    """A second close does nothing."""
    worker.close()
    worker.close()
    assert worker.pid is None
    assert worker.memory_bytes is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_dead_parent_leaves_no_worker(tmp_path, number):
    """Interrupted, the parent kills its worker and removes what it was writing; killed, the system ends the worker."""
    code = textwrap.dedent(f"""
        from pathlib import Path
        from enginery.worker import Worker
        folder = Path({str(tmp_path)!r})
        with Worker("w", folder=folder / "worker", entry=("-c", {ENTRY[1]!r})) as worker:
            (folder / "pid").write_text(str(worker.pid))
            worker.call("half_build", {{"output": folder / "out", "started": folder / "started"}}, limit_s=60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "started").exists, "the job has begun")
    pid = int((tmp_path / "pid").read_text())
    assert is_alive(pid)
    parent.send_signal(number)
    _, said = parent.communicate(timeout=20)
    wait_for(lambda: not is_alive(pid), "the worker is gone")
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in said
        assert staging.stagings(tmp_path / "out") == set()


def make_environment(folder, *, enginery_here):
    """Make a virtual environment that sees this one's packages, with or without Enginery."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    if enginery_here:
        packages = [path for path in sys.path if path.endswith("site-packages")]
        (site / "shared.pth").write_text("\n".join([str(SOURCES), *packages]) + "\n")
    return str(folder / "bin" / "python")


def test_another_interpreter_does_the_jobs(tmp_path, monkeypatch):
    """An environment is a Python with Enginery in it; this one's PYTHONPATH does not leak into it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "leak"))
    python = make_environment(tmp_path / "env", enginery_here=True)
    with Worker("other", folder=tmp_path / "worker", python=python, entry=ENTRY) as other:
        found = other.call("variables", {}, limit_s=60)
    assert any(path.startswith(str(tmp_path / "env")) for path in found["path"])
    assert str(tmp_path / "leak") not in found["path"]


def test_an_environment_without_enginery_says_the_pip_line(tmp_path):
    """The error quotes the interpreter's own words, and the mend installs into that interpreter."""
    python = make_environment(tmp_path / "env", enginery_here=False)
    with pytest.raises(
        EnvironmentSetupError, match=r"holds no usable Enginery: .*No module named 'enginery'"
    ) as caught:
        Worker("other", folder=tmp_path / "worker", python=python).start()
    assert caught.value.mend.startswith(f"run: {python} -m pip install ")


def test_another_version_of_enginery_is_refused(tmp_path):
    """Both sides must be of one version; the error names both."""
    entry = ("-c", "import enginery; enginery.__version__ = '0.0.9'\nfrom enginery import jobs\njobs.main()")
    python = str(make_environment(tmp_path / "env", enginery_here=True))
    with pytest.raises(EnvironmentSetupError, match=f"holds Enginery 0.0.9, this is {enginery.__version__}"):
        Worker("other", folder=tmp_path / "worker", python=python, entry=entry).start()


@pytest.mark.parametrize("python", ["no/such/python", "nosuchpython3"])
def test_a_missing_interpreter_is_named(tmp_path, python):
    """A path or name that is no program is told at once."""
    with pytest.raises(EnvironmentSetupError, match=f"there is no interpreter {python}"):
        Worker("other", folder=tmp_path, python=python).start()


def test_a_program_that_is_no_python_is_named(tmp_path):
    """A program that says nothing is an environment without Enginery."""
    with pytest.raises(EnvironmentSetupError, match="true holds no usable Enginery: it ended without a word"):
        Worker("other", folder=tmp_path, python="true").start()


def test_a_worker_that_cannot_start_shows_its_log(tmp_path):
    """In this interpreter, a start that fails is a crash with the log."""
    with pytest.raises(WorkerCrashError, match=r"(?s)ended with exit code 1 while it did 'start'.*no luck"):
        Worker("bad", folder=tmp_path, entry=("-c", "raise SystemExit('no luck')")).start()


def test_memory_leaves_out_mapped_files():
    """What the system could drop is not counted; what only the process's end gives back is."""
    before = processes.anonymous_bytes(os.getpid())
    # Of its own: an allocator may hand out memory that the process has had all along.
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as kept:
        kept.write(b"x" * len(kept))
        after = processes.anonymous_bytes(os.getpid())
        assert len(kept) * 0.9 < after - before < len(kept) * 2.5
    assert processes.anonymous_bytes(2**22 + 1) is None


def test_every_worker_error_is_one_of_ours():
    """All of them can be caught as WorkerError, and as EngineryError."""
    for kind in (WorkerCrashError, WorkerTimeoutError, WorkerMemoryError, EnvironmentSetupError):
        assert issubclass(kind, WorkerError)
        assert issubclass(kind, EngineryError)


def test_how_far_a_job_has_come_is_handed_on(worker):
    """Announcements arrive in order, before the result; a job after them begins anew."""
    heard = []
    assert worker.call("announce", {}, limit_s=60, on_progress=heard.append) == "told"
    assert heard == [Advance(at / 4, f"phase {at}", 9.0) for at in (1, 2, 3)]
    assert worker.call("announce", {}, limit_s=60) == "told", "nobody has to listen"
    with pytest.raises(WorkerCrashError) as caught:
        worker.call("crash", {}, limit_s=60)
    assert "% done" not in caught.value.message


def test_a_crash_tells_how_far_the_job_had_come_and_the_log_before(worker):
    """What our own log said from INFO on stands in the message."""
    with pytest.raises(
        WorkerCrashError, match=r"died of SIGSEGV while it did 'announce', 75% done \(phase 3\)"
    ) as caught:
        worker.call("announce", {"then": "crash"}, limit_s=60)
    assert "ERROR: the builder's last words" in caught.value.message


def test_a_time_limit_tells_how_far_the_job_had_come(worker):
    """A build that hangs is killed, and said to have hung where it was."""
    with pytest.raises(WorkerTimeoutError, match=r"within 1 s, 75% done \(phase 3\)"):
        worker.call("announce", {"then": "hang"}, limit_s=1)
    assert worker.pid is None


def test_a_listener_that_raises_ends_the_worker(worker):
    """Whoever listens may cancel."""

    def cancel(_advance):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.call("announce", {"then": "hang"}, limit_s=60, on_progress=cancel)
    assert worker.pid is None
