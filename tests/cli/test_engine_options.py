"""Options of an engine as flags: each text becomes what the option's record takes, or is refused by its name."""

import pytest

from deploy_kit.base.errors import RecipeError, RequestError
from deploy_kit.cli import _engine_options
from deploy_kit.engines import onnxruntime, tensorrt_rtx
from deploy_kit.records import codec

NVIDIA = tensorrt_rtx.TensorRtOptions


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("workspace_mib=512", {"workspace_mib": 512}),
        ("workspace-mib=512", {"workspace_mib": 512}),
        ("refit=true", {"refit": True}),
        ("cuda_graph=False", {"cuda_graph": False}),
        ("use_dla_core=0", {"use_dla_core": 0}),
        ("profiling_verbosity=none", {"profiling_verbosity": "none"}),
        ("compute_capabilities=8.9", {"compute_capabilities": ["8.9"]}),
        ("min_shapes=a:1x3,b:2", {"min_shapes": ["a:1x3,b:2"]}),
    ],
)
def test_a_text_becomes_what_the_option_takes(text: str, read: dict[str, object]) -> None:
    found = _engine_options.parse(NVIDIA, [text])

    assert found == read
    assert codec.from_json(NVIDIA, found)


def test_a_list_is_given_entry_by_entry() -> None:
    found = _engine_options.parse(NVIDIA, ["compute_capabilities=8.6", "compute_capabilities=8.9"])

    assert found == {"compute_capabilities": ["8.6", "8.9"]}


@pytest.mark.parametrize("text", ["workspace_mib", "=3", ""])
def test_a_text_without_key_and_value_gives_the_known_keys(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        _engine_options.parse(onnxruntime.OnnxRuntimeOptions, [text])

    assert (str(caught.value), caught.value.hint) == (
        f"'{text}': expected key=value",
        "known: threads, optimize, device",
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("workspace_mib=much", "x.workspace_mib: expected int, found 'much'"),
        ("refit=perhaps", "x.refit: expected bool, found 'perhaps'"),
        ("workspace=5", "x: unknown key 'workspace'"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_record(text: str, wanted: str) -> None:
    with pytest.raises(RecipeError) as caught:
        codec.from_json(NVIDIA, _engine_options.parse(NVIDIA, [text]), "x")

    assert str(caught.value) == wanted


def test_only_options_that_were_changed_are_shown() -> None:
    record = codec.to_json(NVIDIA(compute_capabilities=("8.6", "8.9"), workspace_mib=64))

    assert _engine_options.changed(NVIDIA, record) == "workspace_mib=64, compute_capabilities=8.6+8.9"
    assert _engine_options.changed(NVIDIA, codec.to_json(NVIDIA())) == "defaults"
