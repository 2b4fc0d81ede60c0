"""A builder where CUDA has no device: TensorRT gives none, which its binding tells as a `TypeError`."""

from __future__ import annotations

import types

import pytest

from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.parsing import new_builder
from enginery.backends.tensorrt.versions import LIBRARIES, Api
from enginery.errors import BackendUnavailableError


def make_api(builder):
    """Make an API whose module has loggers and this builder, as TensorRT 8.6 has them."""
    logger = type("ILogger", (), {})
    return Api(LIBRARIES["tensorrt"], types.SimpleNamespace(ILogger=logger, Builder=builder), "8.6.0")


@pytest.mark.parametrize(
    ("words", "said"), [("CUDA initialization failure with error: 100", "error: 100"), ("", "gives no builder")]
)
def test_a_builder_without_a_device_says_what_to_look_at(words, said):
    """TensorRT's own words are in the message, and the mend names the variable that hides GPUs."""

    def refuse(_):
        if words:
            log.take("ERROR", words)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    api = make_api(refuse)
    log = BuildLog(api)
    with pytest.raises(BackendUnavailableError, match=said) as caught:
        new_builder(api, log)
    assert "CUDA_VISIBLE_DEVICES" in caught.value.mend


def test_a_builder_is_the_library_s():
    """Where there is a device, nothing stands between."""
    api = make_api(lambda logger: ("builder", logger))
    log = BuildLog(api)
    assert new_builder(api, log) == ("builder", log.logger)
