"""`main`: errors become messages and exit codes, and stdout holds the result alone."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys

import pytest

from enginery import __version__, errors, pipeline, steps
from enginery.cli.main import enginery as group
from enginery.cli.main import main, main_inner
from enginery.tuning.journal import Journal

COMMANDS = ("optimize", "export", "build", "inspect", "run", "verify", "bench", "doctor", "view", "trtexec", "onnx2trt")


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "enginery", *words]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes `enginery inspect x` raise an error."""

    def install(error: BaseException) -> None:
        def inspect(_path):
            raise error

        monkeypatch.setattr(steps, "inspect", inspect)

    return install


def test_an_error_of_ours_has_its_message_mend_and_code(failing, capsys):
    """Message and mend go to stderr, a line each; stdout stays empty."""
    failing(errors.HashMismatchError("a file is not itself", mend="copy it again"))
    assert main(["inspect", "x"]) == 52
    assert capsys.readouterr() == ("", "error: a file is not itself\nmend: copy it again\n")


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "by_name"])
def test_every_error_leaves_with_the_code_of_its_class(name, failing):
    """No class of error is lost on the way out."""
    kind = getattr(errors, name)
    failing(kind("it broke"))
    assert main(["inspect", "x"]) == kind.exit_code


def test_an_interrupt_leaves_with_130(failing, capsys):
    """Ctrl-C is told in one line, without a traceback."""
    failing(KeyboardInterrupt())
    assert main(["inspect", "x"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted; nothing was written"


def test_an_interrupt_tells_of_the_search_that_is_kept(monkeypatch, capsys, tmp_path):
    """Nothing is written but what a search has measured, where that was asked for; a folder without it is not told."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "optimize", interrupt)
    words = ["optimize", "x.onnx", "--resume", str(tmp_path)]
    assert main(words) == 130
    assert capsys.readouterr().err.strip() == "interrupted; nothing was written"
    Journal(tmp_path).keep("a plan", 1)
    assert main(words) == 130
    kept = tmp_path / "search.jsonl"
    said = f"interrupted; no engine was written; the search is kept in {kept}, and the same command goes on from it"
    assert capsys.readouterr().err.strip() == said
    assert main(words[:2]) == 130
    assert capsys.readouterr().err.strip() == "interrupted; nothing was written"


def test_a_defect_is_short_unless_asked(failing, capsys, monkeypatch):
    """An unexpected exception is one line and how to see more; --verbose and ENGINERY_DEBUG show the traceback."""
    monkeypatch.delenv("ENGINERY_DEBUG", raising=False)
    failing(ZeroDivisionError("one over zero"))
    assert main(["inspect", "x"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ZeroDivisionError: one over zero\nmend: ")
    assert "ENGINERY_DEBUG=1" in said
    assert "Traceback" not in said
    assert main(["--verbose", "inspect", "x"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("ENGINERY_DEBUG", "1")
    assert main(["inspect", "x"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_errors_pass_through_the_body(failing):
    """`main_inner` maps nothing, so that tests and debuggers see the error itself."""
    failing(errors.GraphError("no"))
    with pytest.raises(errors.GraphError):
        main_inner(["inspect", "x"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimise", "x"], "did you mean 'optimize'?"),
        (["inspect"], "Missing argument 'PATH'"),
        (["inspect", "x", "--jsn"], "No such option"),
        (["bench", "x", "--at", "middle"], "'middle' is not one of"),
        (["optimize", "x", "--seed", "-1"], "-1 is not in the range"),
        (["build", "x"], "Missing option"),
    ],
)
def test_wrong_words_leave_with_2(words, said, capsys):
    """Usage errors name what is wrong, and where to read more."""
    assert main(words) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert said in found.err
    assert found.err.startswith("error: ")


def test_no_command_shows_help(capsys):
    """Without a command the help is shown."""
    assert main([]) == 2
    assert "optimize" in "".join(capsys.readouterr())


def test_version(capsys):
    """--version prints the name and the version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"enginery {__version__}\n"


def test_help_lists_every_command_in_the_order_of_the_work(capsys):
    """The first command is the main job."""
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    places = [said.index(f"│ {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert tuple(group.commands) == COMMANDS


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("optimize", ["SOURCE", "--shapes", "--max-error", "--objective", "--backend", "--environment", "openvino"]),
        ("export", ["SOURCE", "--output", "--opset", "--example"]),
        ("build", ["SOURCE", "--backend", "--option", "--in-process", "--no-simplify", "onnxruntime"]),
        ("inspect", ["PATH", "--json"]),
        ("run", ["ENGINE", "INPUT", "--output", ".npz"]),
        ("verify", ["ENGINE", "SOURCE", "--max-error", "--data", "80"]),
        ("bench", ["ENGINE", "--at", "--time-limit", "taking turns"]),
        ("doctor", ["--json", "missing"]),
        ("view", ["PATH", "--no-open", "--netron", "180 days"]),
    ],
)
def test_help_of_every_command(command, words, capsys):
    """The help of each command names its arguments, its options and what matters about them."""
    assert main([command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for word in words:
        assert word in said, word


def test_a_flag_means_the_same_in_every_command():
    """An option of one name has one set of spellings everywhere."""
    spelled: dict[str, set[tuple[str, ...]]] = {}
    for command in group.commands.values():
        for parameter in command.params:
            for name in parameter.opts:
                if name.startswith("--"):
                    spelled.setdefault(name, set()).add(tuple(parameter.opts))
    assert {name: forms for name, forms in spelled.items() if len(forms) > 1} == {}
    assert len(spelled) <= 45


def test_help_loads_nothing_heavy():
    """`enginery --help` imports neither numpy nor any model library."""
    heavy = ["numpy", "onnx", "onnx_ir", "onnxruntime", "openvino", "torch", "onnxscript", "PIL"]
    code = (
        "import sys; from enginery.cli.main import main; main(['--help']); main(['optimize', '--help']); "
        f"sys.exit(','.join(set({heavy}) & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_module_is_the_command():
    """`python -m enginery` does what `enginery` does, exit code included."""
    assert run("--version").stdout == f"enginery {__version__}\n"
    done = run("inspect", "missing.onnx")
    assert (done.returncode, done.stdout) == (11, "")
    assert "missing.onnx" in done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    """A closed pipe ends the output without a word."""
    code = (
        "import os, sys; from enginery.cli.main import main; "
        "r, w = os.pipe(); os.close(r); os.dup2(w, 1); sys.exit(main(['--help']))"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for environment in (buffered, {**buffered, "PYTHONUNBUFFERED": "1"}):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.stderr == ""
        assert done.returncode == 141


def test_a_terminal_without_unicode_is_no_error():
    """Characters that stdout cannot hold are replaced."""
    code = (
        "import sys; from enginery.cli.output import emit; "
        "emit(None, lambda style: '1.0 \\u00b10.1 \\u2500\\u2500 \\u00d7', as_json=False)"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout, done.stderr) == ("1.0 +-0.1 -- ?\n", "")


def test_what_the_library_logs_is_loud(monkeypatch, capsys):
    """A warning of the library's logger is a note on stderr, once, and the logger is left as it was."""
    log = logging.getLogger("enginery")
    before = (list(log.handlers), log.propagate)

    def inspect(_path):
        log.warning("look at %s", "this")
        raise errors.GraphError("no")

    monkeypatch.setattr(steps, "inspect", inspect)
    for _ in range(2):
        assert main(["inspect", "x"]) == 20
        assert capsys.readouterr().err == "note: look at this\nerror: no\n"
    assert (list(log.handlers), log.propagate) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_ctrl_c_in_the_middle_of_work_leaves_nothing(tmp_path, small_model):
    """A real interrupt during `optimize` ends with 130 and one line, and leaves no file behind."""
    import onnx_ir as ir

    ir.save(small_model, tmp_path / "small.onnx")
    before = sorted(tmp_path.iterdir())
    command = [sys.executable, "-m", "enginery", "optimize", "small.onnx", "-o", "out.engine", "--time-limit", "50"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "build" in line:
                process.send_signal(signal.SIGINT)
                break
        out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert said.splitlines()[-1] == "interrupted; nothing was written"
    assert sorted(tmp_path.iterdir()) == before
