"""Timings kept between builds: for one library, version, GPU and driver, whole, and with what others wrote."""

from __future__ import annotations

import json
import multiprocessing
import types
from dataclasses import replace
from pathlib import Path

import pytest

from enginery.backends.tensorrt import runtime_cache, timing_cache
from enginery.backends.tensorrt.timing_cache import Device
from enginery.backends.tensorrt.versions import LIBRARIES, Api, load_api

DEVICE = Device("NVIDIA H200", "9.0", "570.86.15")
MADE_ON = b"sm90:"


class TimingCache:
    """Stands for ITimingCache: a set of entries behind a header, as bytes."""

    def __init__(self, content):
        self.entries = set(content.removeprefix(MADE_ON).split()) if content else set()
        self.header = content[: len(MADE_ON)] or MADE_ON

    def combine(self, input_cache, ignore_mismatch):
        """Take another's entries, unless it is of another GPU."""
        assert ignore_mismatch is False
        if input_cache.header != self.header:
            return False
        self.entries |= input_cache.entries
        return True

    def serialize(self):
        """Return it as bytes, as IHostMemory would."""
        return memoryview(MADE_ON + b" ".join(sorted(self.entries)))


class Config:
    """Stands for IBuilderConfig."""

    def __init__(self):
        self.cache = None

    def create_timing_cache(self, content):
        """Read what was serialised; a blob that is none gives none."""
        return None if content == b"none" else TimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        """Take a cache, unless it is of another GPU."""
        assert ignore_mismatch is False
        if cache.header != MADE_ON:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        """Return what was set."""
        return self.cache


@pytest.fixture
def api():
    """Return TensorRT 8.6 without TensorRT: the cache asks it only for its name."""
    return Api(LIBRARIES["tensorrt"], types.SimpleNamespace(), "8.6.0")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Keep what one test keeps out of the others' way."""
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "enginery"))
    return tmp_path / "enginery" / "timing"


def build(api, *entries, device=DEVICE, where="", version=None):
    """Do what a build does: attach, time some kernels, keep; return what it began with and its notes."""
    config = Config()
    attached = timing_cache.attach(replace(api, version=version or api.version), config, device, where)
    began_with = set(config.cache.entries) if config.cache is not None else None
    if config.cache is not None:
        config.cache.entries.update(entry.encode() for entry in entries)
    attached.keep(config)
    return began_with, attached.notes


def test_the_second_build_has_what_the_first_timed(api, folder):
    """One file and its label, named after what the timings hold for."""
    assert build(api, "conv1", "conv2") == (set(), [])
    assert build(api, "conv3") == ({b"conv1", b"conv2"}, [])
    assert build(api)[0] == {b"conv1", b"conv2", b"conv3"}
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert names == [
        "tensorrt-8.6.0-NVIDIA_H200-9.0-570.86.15.cache",
        "tensorrt-8.6.0-NVIDIA_H200-9.0-570.86.15.cache.json",
    ]
    label = json.loads((folder / names[1]).read_text())
    assert {label["library"], label["version"], label["name"]} == {"tensorrt", "8.6.0", "NVIDIA H200"}


@pytest.mark.parametrize(
    "other",
    [
        {"device": replace(DEVICE, name="NVIDIA H100")},
        {"device": replace(DEVICE, driver="580.65.06")},
        {"device": replace(DEVICE, compute_capability="8.9")},
        {"version": "8.5.3.1"},
    ],
)
def test_timings_of_another_gpu_driver_or_version_are_not_used(api, other):
    """Each has a file of its own; nothing is said, for nothing was lost."""
    build(api, "conv1")
    assert build(api, "conv2", **other) == (set(), [])
    assert build(api)[0] == {b"conv1"}, "and the first one's are untouched"


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "NVIDIA H100"), ("version", "8.5.3.1"), ("driver", "1.0"), ("library", "tensorrt_rtx")],
)
def test_a_file_whose_label_names_something_else_is_not_used(api, folder, field, value):
    """The name of the file is not trusted alone: it may have been copied."""
    build(api, "conv1")
    label = next(folder.glob("*.json"))
    label.write_text(json.dumps({**json.loads(label.read_text()), field: value}))
    began_with, notes = build(api, "conv2")
    assert began_with == set()
    assert f"was not used: it is of {field} {value!r}" in notes[0]
    assert build(api) == ({b"conv2"}, []), "it was written anew"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda cache, _: cache.write_bytes(cache.read_bytes()[:-3]), "it is damaged"),
        (lambda cache, _: cache.write_bytes(b""), "it is damaged"),
        (lambda _, label: label.write_text("{"), "it cannot be read"),
        (lambda _, label: label.write_text("[]"), "no description"),
        (lambda _, label: label.unlink(), "which says what it was written for, is missing"),
    ],
)
def test_a_damaged_file_is_not_used_and_said(api, folder, damage, why):
    """The build begins with nothing, and writes a whole one."""
    build(api, "conv1")
    label = next(folder.glob("*.json"))
    damage(label.with_suffix(""), label)
    began_with, notes = build(api, "conv2")
    assert began_with == set()
    assert len(notes) == 1
    assert why in notes[0]
    assert build(api) == ({b"conv2"}, [])


def test_a_named_file_of_another_tool_is_left_alone(api, tmp_path):
    """Such a file holds the timings of somebody who uses trtexec as well: they are not ours to replace."""
    theirs = tmp_path / "trtexec.cache"
    theirs.write_bytes(b"timings of theirs")
    began_with, notes = build(api, "conv1", where=str(theirs))
    assert began_with == set()
    assert theirs.read_bytes() == b"timings of theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["trtexec.cache"]
    assert "is left as it is" in notes[0]
    assert "name a file of your own" in notes[0]


def test_what_tensorrt_refuses_is_not_used_and_said(api, folder):
    """Its own header names another GPU, whatever the label says."""
    build(api, "conv1")
    label = next(folder.glob("*.json"))
    foreign = b"sm80:conv9"
    label.with_suffix("").write_bytes(foreign)
    label.write_text(json.dumps({**json.loads(label.read_text()), "sha256": timing_cache._hash(foreign)}))
    began_with, notes = build(api, "conv2")
    assert began_with == set()
    assert "TensorRT refused it" in notes[0]


def test_what_another_build_wrote_meanwhile_is_kept(api):
    """Both began with nothing; the file has the timings of both."""
    configs = [Config(), Config()]
    attached = [timing_cache.attach(api, config, DEVICE) for config in configs]
    for at, config in enumerate(configs):
        config.cache.entries.add(b"conv%d" % at)
        attached[at].keep(config)
    assert build(api)[0] == {b"conv0", b"conv1"}


def _build_many(cache_home, name):
    import os

    os.environ["ENGINERY_CACHE"] = str(cache_home)
    api = Api(LIBRARIES["tensorrt"], types.SimpleNamespace(), "8.6.0")
    for at in range(10):
        build(api, f"{name}{at}")


def test_processes_that_build_at_once_lose_nothing(api, tmp_path):
    """The lock lets one at a time read, combine and write."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_build_many, args=(tmp_path / "enginery", name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    began_with, notes = build(api)
    assert began_with == {f"{name}{at}".encode() for name in "abc" for at in range(10)}
    assert notes == []


def test_the_option_names_a_file_or_turns_it_off(api, folder, tmp_path):
    """A path is used as it is; off, and a machine without a GPU, keep nothing."""
    where = str(tmp_path / "mine.cache")
    build(api, "conv1", where=where)
    assert Path(where).read_bytes() == b"sm90:conv1"
    assert build(api, where=where)[0] == {b"conv1"}
    assert build(api, "conv2", where="off") == (None, [])
    assert build(api, "conv2", device=None) == (None, [])
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_loses_no_engine(api, monkeypatch, tmp_path):
    """The note says why nothing was kept."""
    (tmp_path / "file").write_text("")
    assert build(api, "conv1", where=str(tmp_path / "file" / "mine.cache"))[1][0].startswith(
        f"the timing cache {tmp_path}/file/mine.cache was not used"
    )
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "file"))
    began_with, notes = build(api, "conv1")
    assert began_with is None
    assert "there is no folder for the timing cache" in notes[0]


def test_tensorrt_rtx_is_not_asked_for_a_timing_cache():
    """There it does nothing but look for a GPU; who asks for one is told."""
    pytest.importorskip("tensorrt_rtx")
    api = load_api("tensorrt_rtx")
    trt = api.module
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()
    attached = timing_cache.attach(api, config, DEVICE)
    attached.keep(config)
    assert (attached.path, attached.notes) == (None, [])
    assert timing_cache.attach(api, config, DEVICE, "mine.cache").notes == [
        "TensorRT-RTX has no timing cache, so timing_cache does nothing"
    ]


class Compiled:
    """Stands for IRuntimeCache."""

    def __init__(self):
        self.content = b""

    def deserialize(self, content):
        """Refuse what is of another driver."""
        fits = bytes(content).startswith(b"rtx:")
        self.content = bytes(content) if fits else b""
        return fits

    def serialize(self):
        """Return it as bytes, as IHostMemory would."""
        return memoryview(self.content)


class RuntimeConfig:
    """Stands for IRuntimeConfig."""

    def __init__(self):
        self.compiled = None

    def create_runtime_cache(self):
        """Return an empty one."""
        return Compiled()

    def set_runtime_cache(self, compiled):
        """Take one."""
        self.compiled = compiled
        return True


@pytest.fixture
def rtx():
    """Return TensorRT-RTX without a GPU to open anything on."""
    return Api(LIBRARIES["tensorrt_rtx"], types.SimpleNamespace(IRuntimeCache=Compiled), "1.7.1")


def test_what_an_opening_compiled_is_there_at_the_next(rtx, tmp_path):
    """For one engine, GPU, driver and version."""
    key = runtime_cache.cache_key(rtx, "aa", DEVICE)
    first = runtime_cache.attach(rtx, RuntimeConfig(), key)
    assert first.compiled.content == b""
    first.compiled.content = b"rtx:kernel"
    first.keep()
    first.keep()
    config = RuntimeConfig()
    second = runtime_cache.attach(rtx, config, key)
    assert config.compiled.content == b"rtx:kernel"
    assert second.notes == []
    others = [("bb", DEVICE), ("aa", replace(DEVICE, driver="580.1")), ("aa", replace(DEVICE, name="NVIDIA L4"))]
    assert len({key, *(runtime_cache.cache_key(rtx, *other) for other in others)}) == 4
    assert [path.name for path in (tmp_path / "enginery" / "runtime").glob("*.cache")] == [f"{key}.cache"]


def test_a_runtime_cache_that_is_refused_is_made_anew(rtx, tmp_path):
    """The note names the file."""
    folder = tmp_path / "enginery" / "runtime"
    folder.mkdir(parents=True)
    (folder / "k.cache").write_bytes(b"of another driver")
    cached = runtime_cache.attach(rtx, RuntimeConfig(), "k")
    assert "k.cache was not used: TensorRT-RTX refused it" in cached.notes[0]
    cached.compiled.content = b"rtx:new"
    cached.keep()
    assert (folder / "k.cache").read_bytes() == b"rtx:new"


def test_of_many_engines_the_newest_runtime_caches_are_kept(rtx, monkeypatch, tmp_path):
    """The user's cache folder does not grow for ever."""
    monkeypatch.setattr(runtime_cache, "_KEPT", 3)
    for at in range(6):
        cached = runtime_cache.attach(rtx, RuntimeConfig(), f"engine{at}")
        cached.compiled.content = b"rtx:%d" % at
        cached.keep()
    assert len(list((tmp_path / "enginery" / "runtime").glob("*.cache"))) == 3


def test_tensorrt_itself_has_no_runtime_cache(api):
    """Nothing is made and nothing kept."""
    cached = runtime_cache.attach(api, RuntimeConfig(), "k")
    cached.keep()
    assert (cached.path, cached.compiled) == (None, None)
