"""Weights of a file go into a factory's module, all of them or none."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.errors import CorruptModelError, SourceError, SourceNotFoundError
from enginery.sources import open_source

torch = pytest.importorskip("torch")
nn = torch.nn


def trained():
    """Return a module with weights that are not those of a new one."""
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with torch.no_grad():
        for value in module.parameters():
            value.fill_(0.5)
    return module


def fresh():
    """Return the same module untrained."""
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def result(source):
    """Run a source on ones."""
    return source.run({"input": np.ones((1, 4), np.float32)})["output"].tolist()


def numpy_file(state, path):
    """Save a state dict as numpy's archive."""
    np.savez(path, **{name: value.numpy() for name, value in state.items()})


@pytest.mark.parametrize(
    ("name", "save", "note"),
    [
        ("plain.pt", torch.save, None),
        (
            "nested.pth",
            lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
            "'state_dict' of nested",
        ),
        (
            "parallel.pt",
            lambda state, path: torch.save({f"module.{name}": value for name, value in state.items()}, path),
            "those of DataParallel: 'module.' was taken off",
        ),
        ("arrays.npz", numpy_file, None),
    ],
)
def test_weights_are_loaded(tmp_path, name, save, note):
    """A state dict, also one in a checkpoint or of a wrapped module, is loaded; wrappings taken off are told."""
    save(trained().state_dict(), tmp_path / name)
    module = fresh()
    source = open_source(module, example_inputs=torch.ones(1, 4), weights=tmp_path / name)
    expected = result(open_source(trained(), example_inputs=torch.ones(1, 4)))
    assert result(source) == expected
    assert result(open_source(module, example_inputs=torch.ones(1, 4))) != expected  # the caller's is not changed
    notes = source.export(shapes={}).record.notes
    assert any(note in one for one in notes) if note else not any("weights" in one for one in notes)


def test_safetensors(tmp_path):
    """Safetensors files are read where the package is installed, and a broken one is corrupt."""
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(trained().state_dict(), tmp_path / "weights.safetensors")
    source = open_source(fresh(), example_inputs=torch.ones(1, 4), weights=tmp_path / "weights.safetensors")
    assert result(source) == [[4.25, 4.25]]
    (tmp_path / "weights.safetensors").write_bytes(b"no such header")
    with pytest.raises(CorruptModelError, match=r"cannot be read as \.safetensors"):
        open_source(fresh(), weights=tmp_path / "weights.safetensors")


def test_weights_of_a_factory(tmp_path, monkeypatch):
    """A factory's module takes the weights, and its label says which factory."""
    (tmp_path / "net.py").write_text(
        "import torch\ndef make(): return torch.nn.Linear(4, 2), torch.ones(1, 4)\n", encoding="utf-8"
    )
    torch.save({"weight": torch.ones(2, 4), "bias": torch.zeros(2)}, tmp_path / "weights.pt")
    monkeypatch.chdir(tmp_path)
    source = open_source("net.py:make", weights="weights.pt")
    assert source.label == "torch module Linear (net.py:make)"
    assert result(source) == [[4.0, 4.0]]


def test_weights_that_do_not_fit(tmp_path):
    """Missing, unexpected and differently shaped weights are counted, and the first few named."""
    state = trained().state_dict()
    state["2.weight"] = state.pop("1.weight")
    state["0.bias"] = torch.ones(5)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(SourceError) as caught:
        open_source(fresh(), weights=tmp_path / "other.pt")
    assert "do not fit torch module Sequential: 1 missing (1.weight); 1 unexpected (2.weight)" in caught.value.message
    assert "1 of another shape (0.bias is (5,), not (3,))" in caught.value.message
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(SourceError, match="holds no state dict, but a list"):
        open_source(fresh(), weights=tmp_path / "list.pt")
    with pytest.raises(SourceNotFoundError, match=r"there is no file of weights .*othr\.pt; did you mean"):
        open_source(fresh(), weights=tmp_path / "othr.pt")
