"""Work in progress: gone when its block ends, known to be dead when its process was killed, swapped in one step."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from enginery import staging
from enginery.errors import OutputError

HOLD = """
import sys, time
from pathlib import Path
from enginery import staging
with staging.staging(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""


def names(folder):
    """Return what is in a folder, hidden names too."""
    return sorted(entry.name for entry in folder.iterdir())


def test_parents_made_for_nothing_go_again(tmp_path):
    """A failure takes the parents along that were made for it; a success keeps them, and what stood is left alone."""
    (tmp_path / "old").mkdir()
    with pytest.raises(ZeroDivisionError), staging.staging(tmp_path / "old" / "new" / "deep" / "x"):
        _ = 1 / 0
    assert names(tmp_path) == ["old"]
    assert names(tmp_path / "old") == []
    with staging.staging(tmp_path / "new" / "x") as folder:
        folder.rename(tmp_path / "new" / "x")
    assert names(tmp_path / "new") == ["x"]


def test_a_parent_that_is_a_file_is_named(tmp_path):
    """The message says which of the parents is in the way."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"cannot write .*/file/deep/x: .*/file is a file, no folder"),
        staging.staging(tmp_path / "file" / "deep" / "x"),
    ):
        pass


def test_a_dead_process_is_cleaned_up_after_and_a_living_one_is_not(tmp_path):
    """What a killed process has left goes with the next run; what another one is writing stays."""
    path = tmp_path / "x.engine"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            folder = Path(process.stdout.readline().strip())
            staging.remove_leftovers(path)
            assert names(folder) == ["half"]
        finally:
            process.send_signal(signal.SIGKILL)
    assert names(folder) == ["half"]
    with staging.staging(path) as mine:
        assert staging.stagings(path) == {mine}
    assert names(tmp_path) == []


def test_many_writers_at_once_leave_one_whole_folder(tmp_path):
    """Swaps that meet each other neither fail nor leave anything behind."""
    path, failures = tmp_path / "x.engine", []

    def write(text: str) -> None:
        try:
            for _ in range(20):
                with staging.staging(path) as folder:
                    (folder / "a").write_text(text)
                    (folder / "b").write_text(text)
                    staging.swap(folder, path)
        except Exception as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(tmp_path) == ["x.engine"]
    assert (path / "a").read_text() == (path / "b").read_text()


def test_a_failed_swap_puts_the_old_one_back(tmp_path):
    """What stood there stands there again."""
    path = tmp_path / "x.engine"
    path.mkdir()
    (path / "old").write_text("")
    with pytest.raises(FileNotFoundError):
        staging.swap(tmp_path / "missing", path)
    assert names(path) == ["old"]
    assert names(tmp_path) == ["x.engine"]


def test_a_disk_with_space_is_not_full(tmp_path):
    """The probe leaves nothing behind."""
    assert not staging.is_full(tmp_path)
    assert names(tmp_path) == []


def test_a_limit_on_the_size_of_files_is_no_full_disk(tmp_path):
    """The mend is the limit's, which is the shell's."""
    with pytest.raises(OutputError, match="may not become so large; see `ulimit -f`"), staging.writing(tmp_path / "x"):
        raise OSError(errno.EFBIG, "File too large")
