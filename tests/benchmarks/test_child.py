"""Calls in a process of their own, on functions that return, refuse, break and die."""

import pytest

from benchmarks import child
from deploy_kit.base import bundled


@pytest.mark.slow
def test_a_value_comes_back_with_its_cost() -> None:
    ended = child.call("end_to_end:tree_mib", root=1)

    assert isinstance(ended.value, int)
    assert ended.why == ""
    assert ended.seconds > 0
    assert ended.peak_mib > 0


@pytest.mark.slow
def test_an_error_raised_on_purpose_is_its_reason() -> None:
    ended = child.call("calibration:infer", source="absent.onnx", calibration="absent.npz", preprocess={})

    assert ended.value is None
    assert ended.why.startswith("failed: Preprocess: 'height' is missing")


def test_what_a_machine_has_not_is_said_in_its_own_words() -> None:
    image = str(bundled.find_bundled("calibration", "fashion-mnist-512"))
    job = {"name": "eager@torch", "engine": "torch", "path": "", "options": {}, "image": image}

    assert child.call("turns:probe", job=job, threads=2, n_streams=2).why == "not measured with streams"


def test_a_bug_is_told_by_its_last_words() -> None:
    assert child.call("ratios:least_ms", samples=[]).why.startswith("failed: ValueError")


def test_a_crash_is_named_by_its_signal() -> None:
    assert child._death(-11, b"") == "crashed: SIGSEGV"


@pytest.mark.parametrize(("stderr", "said"), [(b"", "failed: exit code 3"), (b"a\nlast\n", "failed: last")])
def test_an_exit_is_told_by_its_last_words(stderr: bytes, said: str) -> None:
    assert child._death(3, stderr) == said
