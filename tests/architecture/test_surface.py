"""The public surface: the names, the lightness of importing them, and the errors."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import enginery
from enginery import errors

HEAVY = (
    "numpy", "onnx", "onnx_ir", "onnxruntime", "openvino", "torch", "onnxscript", "tensorflow", "keras", "tf2onnx",
    "safetensors", "rich", "click", "PIL",
)  # fmt: skip


def loaded_by(code: str) -> list[str]:
    """Run a statement in a fresh interpreter and return the heavy modules it loaded."""
    script = f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_public_names_are_what_is_exported():
    """`__all__`, the lazy table and the type checker's imports name the same things, and all of them load."""
    assert set(enginery.__all__) == {*enginery._HOMES, "__version__"}
    for name in enginery.__all__:
        assert getattr(enginery, name) is not None
    text = inspect.getsource(enginery)
    for name in enginery._HOMES:
        assert f"import {name} as {name}" in text, f"add `import {name} as {name}` for the type checker"


def test_no_public_name_is_also_a_module():
    """A submodule would take the place of a lazy function of the same name when it is first imported."""
    root = Path(enginery.__file__).parent
    modules = {path.stem for path in root.glob("*.py")} | {path.name for path in root.iterdir() if path.is_dir()}
    assert not modules & set(enginery.__all__), "rename the module: modules are nouns, functions are verbs"


def test_unknown_name_is_an_attribute_error():
    """A name that does not exist says so, as any module does."""
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        _ = enginery.optimise


def test_importing_the_package_loads_nothing_heavy():
    """`import enginery` loads no library at all."""
    assert loaded_by("import enginery") == []


def test_public_functions_are_documented():
    """Each public function has a docstring whose first line is a sentence, and names what it raises."""
    for name in enginery.__all__:
        thing = getattr(enginery, name)
        if inspect.isfunction(thing):
            doc = inspect.getdoc(thing) or ""
            assert doc.partition("\n")[0].endswith("."), f"{name}: the first line is no sentence"


def test_every_error_has_its_own_exit_code():
    """No two classes of error share an exit code, and each stands in the tree of the module's docstring."""
    classes = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    codes = {kind.exit_code: kind.__name__ for kind in classes}
    assert len(codes) == len(classes)
    for code, name in codes.items():
        assert any(name in line and str(code) in line for line in (errors.__doc__ or "").splitlines()), name
    assert {kind.__name__ for kind in classes} <= set(errors.__all__)


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"by_name"}))
def test_errors_survive_a_process_border(name):
    """An error that is pickled, or named to `by_name`, comes back with its class, message and mend."""
    import pickle

    kind = getattr(errors, name)
    back = pickle.loads(pickle.dumps(kind("it broke", mend="mend it")))  # noqa: S301 - our own bytes
    assert (type(back), str(back)) == (kind, "it broke; mend it")


def test_modules_say_what_they_export():
    """Every public module lists its names, and the names exist."""
    root = Path(enginery.__file__).parent
    for path in root.rglob("*.py"):
        dotted = ".".join(("enginery", *path.relative_to(root).with_suffix("").parts))
        if path.stem in ("__init__", "__main__") or dotted.startswith("enginery.cli."):
            continue
        module = importlib.import_module(dotted)
        assert hasattr(module, "__all__"), f"{dotted} has no __all__"
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert not missing, f"{dotted}.__all__ names {missing}, which it does not have"
