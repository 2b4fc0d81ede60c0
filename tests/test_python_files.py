"""Python that a user names is imported by its path, and gives its neighbours back."""

from __future__ import annotations

import sys

import pytest

from enginery.python_files import import_file, importable, nearest_function

RECORD = """
from __future__ import annotations
import dataclasses

@dataclasses.dataclass
class Record:
    size: dataclasses.KW_ONLY
    rows: int = 1
"""


def test_a_file_may_define_dataclasses(tmp_path):
    """Dataclasses look their module up by name, so it is registered before the file runs."""
    (tmp_path / "json.py").write_text(RECORD)
    assert import_file(tmp_path / "json.py").Record().rows == 1
    assert not hasattr(sys.modules.get("json"), "Record")


def test_a_file_that_fails_leaves_nothing_behind(tmp_path):
    """What the file's code raises passes through, and no half-made module stays registered."""
    (tmp_path / "net.py").write_text("raise KeyError('weights')")
    before = set(sys.modules)
    with pytest.raises(KeyError, match="weights"):
        import_file(tmp_path / "net.py")
    assert set(sys.modules) == before
    with pytest.raises(FileNotFoundError, match="there is no file"):
        import_file(tmp_path / "absent.py")


def test_the_path_is_put_back_even_where_the_code_changed_it(tmp_path):
    """A file that takes its own folder out of the path is no error."""
    before = list(sys.path)
    with importable(tmp_path):
        sys.path.remove(str(tmp_path))
    assert sys.path == before


def test_the_nearest_function_is_suggested(tmp_path):
    """A near name is suggested, else what the file itself defines is listed."""
    (tmp_path / "net.py").write_text("from json import dumps\ndef make_net(): pass\ndef make_small(): pass\n")
    module = import_file(tmp_path / "net.py")
    assert nearest_function(module, "make_nets", "net.py") == "did you mean 'net.py:make_net'?"
    assert nearest_function(module, "q", "net.py") == "it has: make_net, make_small"
