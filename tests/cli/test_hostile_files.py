"""Every command over files that are made to hurt it: exit code 2 with words, at once, and never a trace."""

import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Said, deploykit

from deploy_kit.base import text_files
from deploy_kit.store import Store

pytest_plugins = ["tiny_line"]

DEEP, NO_KEY = "[" * 3000 + "]" * 3000, "\x1b[31mred\x1b[0m"
YAML = {
    "deep": f"name: {DEEP}",
    "circular": "name: &a {name: *a}",
    "anchors": "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
    "merge-keys": "\n".join(
        ["a0: &a0 {x: 1}", *(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    ),
    "5000-digits": f"name: {'7' * 5000}",
    "4000-digits": f"name: {'7' * 290}\nbench: {{rounds: 1{'0' * 290}}}",
    "base-60": f"name: 1{':59' * 100_000}",
    "list": "- 1\n- 2",
    "number": "3",
    "empty": "",
    "date": "name: 2026-11-28",
    "set": "name: !!set {a, b}",
    "binary": "name: !!binary aGVsbG8=",
    "object": "name: !!python/name:os.system",
    "steering-key": '"\\e[31mred": 1',
    "number-key": "1: 2",
    "list-key": "[1, 2]: 3",
    "null-key": "~: 3",
    "text": "a\x00b",
}
BYTES = {"latin-1": b"name: caf\xe9", "utf-16": "name: a".encode("utf-16"), "nul": b"\0" * 100}
COMMANDS = {
    "run": lambda file: ["run", file],
    "run --dry-run": lambda file: ["run", file, "--dry-run"],
    **{
        name: lambda file, name=name: [name, "--recipe", file, "--store", "store"]
        for name in ("export", "simplify", "quantize", "build", "check", "bench", "report")
    },
}


def orderly(said: Said, code: int = 2) -> None:
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    assert said.error, said.err
    assert all(part.isprintable() for part in (said.out + said.err).splitlines())
    assert max(map(len, said.err.splitlines())) < 6000


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    for name, text in YAML.items():
        (folder / f"{name}.yaml").write_text(text)
    for name, data in BYTES.items():
        (folder / f"{name}.yaml").write_bytes(data)
    (folder / "folder.yaml").mkdir()
    (folder / "endless.yaml").symlink_to("/dev/zero")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    return folder


RECIPES = [*YAML, *BYTES, "folder", "endless", "loop"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    begun = time.process_time()
    yield begun
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_refused(recipe: str, recipes: Path) -> None:
    orderly(deploykit("run", recipes / f"{recipe}.yaml", "--dry-run"))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("recipe", ["deep", "anchors", "5000-digits", "steering-key", "latin-1"])
def test_every_command_refuses_a_recipe(command: str, recipe: str, recipes: Path) -> None:
    orderly(deploykit(*COMMANDS[command](recipes / f"{recipe}.yaml")))


LONG = "n" * 300
LONG_PATHS = {
    "checkpoint": ["inspect", f"{LONG}.pth"],
    "export": ["export", f"{LONG}.pth"],
    "onnx": ["lint", f"{LONG}.onnx"],
    "recipe": ["run", f"{LONG}.yaml", "--dry-run"],
    "sweep": ["sweep", f"{LONG}.yaml", "--dry-run"],
    "images": ["export", "a.pth", "--images", LONG],
    "store": ["export", "--store", LONG],
    "store list": ["store", "list", "--store", LONG],
    "out": ["export", "--out", f"{LONG}.onnx"],
    "report": ["report", "--store", "store", "--out", LONG],
    "bundle": ["verify", LONG],
    "pack": ["pack", "--store", "store", "--out", LONG],
    "runs": ["compare", f"{LONG}.json", f"{LONG}.json"],
    "page": ["compare", "a.json", "a.json", "--html", f"{LONG}.html"],
    "deep": ["inspect", "/".join(["d" * 200] * 25)],
}


@pytest.mark.parametrize("command", LONG_PATHS.values(), ids=LONG_PATHS)
def test_a_path_that_no_file_can_have_is_refused(command: list[str]) -> None:
    said = deploykit(*command)

    assert said.code in (2, 5), said.err
    orderly(said, said.code)


DEVICE_COMMANDS = {
    "list": ["devices", "list"],
    "probe": ["devices", "probe", "orin"],
    "clean": ["devices", "clean", "orin"],
    "remove": ["devices", "remove", "orin"],
    "build": ["build", "--device", "orin"],
    "bench": ["bench", "--device", "orin"],
    "run": ["run", "demo", "--device", "orin"],
}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "empty"])
def test_a_file_of_devices_is_refused(recipe: str, recipes: Path, tmp_path: Path) -> None:
    (tmp_path / "devices.yaml").symlink_to(recipes / f"{recipe}.yaml")

    orderly(deploykit("devices", "list"))


@pytest.mark.parametrize("command", DEVICE_COMMANDS.values(), ids=DEVICE_COMMANDS)
@pytest.mark.parametrize("recipe", ["deep", "anchors", "5000-digits", "latin-1"])
def test_every_command_of_devices_refuses_the_file(
    command: list[str], recipe: str, recipes: Path, tmp_path: Path
) -> None:
    (tmp_path / "devices.yaml").symlink_to(recipes / f"{recipe}.yaml")

    orderly(deploykit(*command))


LINKS = {
    "a line feed behind the host": "ssh://me@orin\n",
    "a line feed behind the port": "ssh://me@orin:22\n",
    "an option as user": "ssh://-oProxyCommand=id@orin",
    "an option as host": "ssh://-oProxyCommand=id",
    "a command as host": "ssh://$(id)",
    "a control character": "ssh://me@or\x1bin",
    "a port of 5000 digits": f"ssh://me@orin:{'9' * 5000}",
    "other digits": "ssh://me@orin:٢٢",
    "a password": "ssh://me:secret@orin",
    "nothing": "ssh://",
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_a_link_is_refused(link: str) -> None:
    orderly(deploykit("devices", "add", "orin", link))


@pytest.mark.parametrize("name", ["orin\n", "\x1b[31m", "a b", "-a", "local", "a/b"])
def test_a_name_of_a_device_is_refused(name: str) -> None:
    orderly(deploykit("devices", "add", "--", name, "ssh://me@orin"))


def test_a_user_with_shell_text_is_quoted_in_the_line_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy_kit.devices.login import Address

    assert Address(user="a;reboot", host="orin", port=22).arguments == "-p 22 'a;reboot@orin'"


JSON = {
    "deep": "[" * 100_000,
    "5000-digits": '{"rows": ' + "9" * 5000 + "}",
    "400-digits": '{"measurements": [{"samples_ms": [' + "9" * 400 + "]}]}",
    "a number": "3",
    "a list": "[]",
    "empty": "",
    "nothing measured": "{}",
    "an unknown key": json.dumps({NO_KEY: 1}),
    "null rows": '{"rows": null}',
    "rows of numbers": '{"rows": [1]}',
    "NaN": '{"measurements": NaN}',
    "half": '{"measurements": [{"sam',
}


@pytest.mark.parametrize("text", [*JSON.values(), b"\xff\xfe", b"\0"], ids=[*JSON, "bytes", "nul"])
@pytest.mark.parametrize("command", [["compare", "a.json", "a.json"], ["bench", "--baseline", "a.json"]])
def test_a_run_is_refused(command: list[str], text: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text.encode() if isinstance(text, str) else text)

    orderly(deploykit(*command))


def test_a_pipe_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_SILENCE_S", 0.05)
    os.mkfifo(tmp_path / "a.json")

    said = deploykit("compare", "a.json", "a.json")

    orderly(said)
    assert "a pipe that does not end" in said.error


def huge_npz(path: Path, *names: str) -> Path:
    """Write an npz whose arrays promise 2^40 numbers."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            with archive.open(f"{name}.npy", "w") as member:
                head = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
                np.lib.format.write_array_header_1_0(member, head)  # type: ignore[arg-type]  # numpy's own stub
                member.write(b"\0" * 64)
    return path


def test_a_probe_that_promises_2_to_the_40_numbers_is_refused(tmp_path: Path) -> None:
    from tiny_densenet import save_tiny, tiny_model

    save_tiny(tmp_path / "a.safetensors", tiny_model())
    huge_npz(tmp_path / "io.npz", "input", "logits")

    orderly(deploykit("export", "a.safetensors", "--probe", "io.npz"))


@pytest.mark.parametrize("option", ["--images", "--calibration"])
def test_images_that_promise_2_to_the_40_numbers_are_refused(option: str, tmp_path: Path) -> None:
    huge_npz(tmp_path / "io.npz", "images")
    command = ["check", "--images"] if option == "--images" else ["quantize", "--int8", "--calibration"]

    said = deploykit(*command, "io.npz", "--store", "store")

    assert (said.code, "Traceback" in said.err) == (2, False), said.err


@pytest.mark.parametrize("text", [JSON["deep"], "3", '{"onnx": [' * 3000, "\0"])
def test_a_damaged_record_beside_a_file_is_no_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    (tmp_path / "record.json").write_text(text)

    orderly(deploykit("inspect", "model.onnx"))


@pytest.mark.slow
def test_images_whose_names_are_no_text_are_checked(kept: Store, tmp_path: Path) -> None:
    from PIL import Image

    generator, names = np.random.default_rng(0), (b"caf\xe9", b"\x1b[31mred", b"a\nerror: b", "größe".encode(), b"\xff")
    for number, kind in enumerate((b"a\xe9", b"b\x9b2J", b"c", b"d")):
        folder = os.fsencode(tmp_path / "set") + b"/" + kind
        os.makedirs(folder)
        for name in names:
            pixels = generator.integers(0, 255, (16, 16), np.uint8) // (number + 1)
            Image.fromarray(pixels).save(os.fsdecode(folder + b"/" + name + b".png"))

    said = deploykit("check", "--images", tmp_path / "set", "--store", kept.root)
    again = deploykit("check", "--images", tmp_path / "set", "--store", kept.root, "--json")

    assert "Traceback" not in said.err + again.err, said.err
    assert said.code == again.code
    assert said.code in (0, 1, 6), said.err
    assert all(part.isprintable() for part in (said.out + said.err + again.err).splitlines())
    assert not said.out or json.loads(again.out)
