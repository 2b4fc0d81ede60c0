"""The four rules of the architecture, each with the mend in its failure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginery import backends, sources

SOURCE = Path(backends.__file__).parents[1]
STAGES = (
    "sources", "graph", "backends", "inputs", "verification", "benchmark", "tuning", "tasks", "deployment", "reports",
)  # fmt: skip
LAYERS = (
    ("errors",),
    ("spec", "optional", "plain", "streams", "python_files"),
    ("records", "dtypes", "progress"),
    (
        "machine", "gpu_packages", "tensorrt_packages", "caches", "staging", "storage", "processes", "environments",
        "worker", "worker_loop",
    ),
    STAGES,
    ("checkup", "jobs"),
    ("evaluation",),
    ("fitting", "part_engines", "quantising"),
    ("preparation", "divergence"),
    ("locating", "sensing"),
    ("steps", "dry_running"),
    ("trtexec_spec",),
    ("trtexec_queries",),
    ("pipeline",),
    ("trtexec",),
    ("cli", "__main__"),
)  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
GROUND_FLOOR = {"numpy", "onnx", "onnx_ir", "ml_dtypes", "typing_extensions", "enginery"}
HOMES = {
    "click": ("cli/",),
    "rich_click": ("cli/",),
    "rich": ("cli/", "reports/"),
    "onnxruntime": ("graph/precision/calibrate.py", "backends/onnxruntime.py"),
    "openvino": ("backends/openvino.py",),
    "tensorrt": ("backends/tensorrt/versions.py",),
    "tensorrt_rtx": ("backends/tensorrt/versions.py",),
    "cuda": ("backends/tensorrt/cuda.py",),
    "onnxscript": ("graph/passes/", "sources/pytorch/"),
    "torch": ("sources/torch_module.py", "sources/pytorch/"),
    "safetensors": ("sources/pytorch/weights.py",),
    "tensorflow": ("sources/tensorflow/",),
    "keras": ("sources/tensorflow/",),
    "tf2onnx": ("sources/tensorflow/",),
    "PIL": ("inputs/pictures.py",),
    "netron": ("cli/view.py",),
}


def modules() -> list[Path]:
    """Return every module of the package."""
    return sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return a module's place below the package, such as `backends/base.py`."""
    return path.relative_to(SOURCE).as_posix()


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every import: statements, and the strings given to `require` and `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if called in ("require", "import_module") and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def parts_of_ours(name: str) -> list[str]:
    """Split one of our module names below the package: `enginery.graph.base` is `["graph", "base"]`."""
    return name.split(".")[1:] if name.startswith("enginery.") else []


def is_inside(parts: list[str]) -> bool:
    """Say whether a name is a module or a folder of a stage, other than its `base.py`."""
    if len(parts) == 1 or parts[1] == "base":
        return False
    place = SOURCE / parts[0] / parts[1]
    return place.is_dir() or place.with_suffix(".py").exists()


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_arrows_point_down(path):
    """A module imports only what stands below it; a stage takes another stage's base.py or package, nothing else."""
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in LEVEL, f"{name_of(path)}: {own!r} has no layer yet; give it one in LAYERS of this test"
    for line, imported in imports(ast.parse(path.read_text())):
        parts = parts_of_ours(imported)
        if not parts or parts[0] not in LEVEL or parts[0] == own:
            continue
        where = f"{name_of(path)}:{line} imports {imported}"
        assert LEVEL[parts[0]] <= LEVEL[own], f"{where}, which stands above it: pass what is needed as an argument"
        if own in STAGES and parts[0] in STAGES:
            assert not is_inside(parts), f"{where}, another stage's inside: move what is shared to {parts[0]}/base.py"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_heavy_libraries_have_one_home(path):
    """Every library but the ground floor is imported in its one home, wherever in the file the import stands."""
    import sys

    name = name_of(path)
    for line, imported in imports(ast.parse(path.read_text())):
        top = imported.partition(".")[0]
        if top in GROUND_FLOOR or top in sys.stdlib_module_names:
            continue
        homes = HOMES.get(top)
        assert homes, f"{name}:{line} imports {top}, which has no home: add it to HOMES of this test, with one home"
        assert name.startswith(homes), f"{name}:{line} imports {top}: its home is {' or '.join(homes)}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_heavy_libraries_are_imported_late(path):
    """No module imports a heavy library when it is itself imported; even onnx and onnx_ir wait for a call."""
    late = {*HOMES, "onnx", "onnx_ir"} - {"click", "rich_click", "rich"}
    for node in ast.parse(path.read_text()).body:
        for line, imported in imports(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            top = imported.partition(".")[0]
            assert top not in late, f"{name_of(path)}:{line} imports {top} at its top: move it into the function"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_names_live_in_their_table(path):
    """No second list of backend or source names: choices, docs and tests derive from the one table."""
    tables = {"backends/__init__.py": set(backends.BACKENDS), "sources/__init__.py": set(sources.SOURCES)}
    for node in ast.walk(ast.parse(path.read_text())):
        items = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", ())
        strings = {item.value for item in items if isinstance(item, ast.Constant)}
        for home, names in tables.items():
            listed = strings & names
            allowed = (
                name_of(path) in (home, "machine.py", "checkup.py", "backends/tensorrt/versions.py") or len(listed) < 2
            )
            where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
            assert allowed, f"{where} lists {sorted(listed)}: derive them from the table in {home}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_the_command_line_prints(path):
    """Outside cli/ nothing prints, and outside reports/ and cli/ nothing makes tables."""
    if name_of(path).startswith("cli/"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            printing = called == "print" or called.endswith(("stdout.write", "stderr.write", "click.echo"))
            assert not printing, f"{name_of(path)}:{node.lineno} prints: return a record, or tell the Progress"
