"""``deploykit lint``: what is said, how it ends, and which graph it takes where none is named."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest

from deploy_kit import cli
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

_TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[{batch},4] x) => (float[n,m] y) <{constants}> {{ {body} }}'
_PAIR = "q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z)"


def written(path: Path, body: str = "y = Relu(x)", constants: str = "float c = {0}", batch: str = "1") -> Path:
    """Write a graph of text to a file."""
    onnx.save(onnx.parser.parse_model(_TEXT.format(body=body, constants=constants, batch=batch)), path)
    return path


def lint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path
) -> tuple[int, str, str]:
    """Run the command: exit code, standard output, standard error."""
    monkeypatch.setattr("sys.argv", ["deploykit", "lint", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


Caught = pytest.CaptureFixture[str]


def test_a_graph_without_a_fault_ends_with_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Caught) -> None:
    code, out, _ = lint(monkeypatch, capsys, written(tmp_path / "a.onnx"), "--target", "tensorrt:10.3")

    assert (code, out) == (0, "no findings for tensorrt 10.3\n")


def test_an_error_ends_with_1_and_says_code_and_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Caught
) -> None:
    path = written(tmp_path / "a.onnx", _PAIR, "float s = {0.1}, int8 z = {5}")

    code, out, _ = lint(monkeypatch, capsys, path, "--target", "tensorrt_rtx")

    assert code == 1
    assert "TRT001" in out
    assert "fix: quantize symmetrically: deploykit quantize --int8 --target tensorrt" in " ".join(out.split())


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--strict",), 1)])
def test_a_warning_fails_only_where_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Caught, flags: tuple[str, ...], code: int
) -> None:
    path = written(tmp_path / "a.onnx", _PAIR, "float s = {0.1}, uint8 z = {0}")

    ended, out, _ = lint(monkeypatch, capsys, path, "--target", "tensorrt", *flags)

    assert (ended, "TRT006" in out) == (code, True)


def test_a_note_never_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Caught) -> None:
    path = written(tmp_path / "a.onnx", "f = Cast<to = 10>(x)  y = Cast<to = 1>(f)")

    code, out, _ = lint(monkeypatch, capsys, path, "--target", "tensorrt", "--strict")

    assert (code, "ranges unknown" in out) == (0, True)


def test_json_gives_every_finding_as_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Caught) -> None:
    path = written(tmp_path / "a.onnx", batch="N")

    code, out, _ = lint(monkeypatch, capsys, path, "--target", "dla", "--json")

    (found,) = json.loads(out)
    assert (code, found["code"], found["level"], found["text"]) == (
        1,
        "DLA001",
        "error",
        "input 'x' has the dynamic axis N",
    )


def test_findings_that_say_the_same_are_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Caught
) -> None:
    body = "a = Dropout(x, r, t)  b = Dropout(a, r, t)  y = Dropout(b, r, t)"
    path = written(tmp_path / "a.onnx", body, "float r = {0.5}, bool t = {1}")

    _, out, _ = lint(monkeypatch, capsys, path)

    assert out.count("ONNX002") == 1
    assert "a and 2 more" in out


def test_the_newest_graph_of_the_store_is_taken_where_none_is_named(
    line: "Line", kept: Store, monkeypatch: pytest.MonkeyPatch, capsys: Caught
) -> None:
    _, _, err = lint(monkeypatch, capsys, "--store", kept.root)

    assert f"checking {line.graph('int8').path} (int8)" in err


def test_an_empty_store_says_how_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Caught) -> None:
    code, _, err = lint(monkeypatch, capsys, "--store", tmp_path / "store")

    assert code == 2
    assert "no graph was made here yet" in err
    assert "fix: deploykit lint model.onnx, or deploykit export" in err


def test_a_misspelt_target_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Caught) -> None:
    code, _, err = lint(monkeypatch, capsys, written(tmp_path / "a.onnx"), "--target", "openvin")

    assert (code, "did you mean 'openvino'?" in err) == (2, True)


def test_a_file_that_is_no_onnx_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Caught
) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"\x08\x0anoise")

    code, _, err = lint(monkeypatch, capsys, path)

    assert (code, err.startswith(f"error: {path}: ")) == (2, True)
