"""devices.yaml: what a person may write, and what is said where it is wrong."""

from pathlib import Path

import pytest

from deploy_kit.base.errors import DeployKitError, DeviceError, RecipeError, RequestError
from deploy_kit.devices import links, named_devices
from deploy_kit.records.artifacts import Device

JETSON = "jetson:\n  link: ssh://user@orin:2222\n  accelerator: cuda:0\n  profile: jetson-orin-nano\n"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file, in an empty config folder; the working folder is empty too."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    path = tmp_path / "config" / "deploykit" / "devices.yaml"
    path.parent.mkdir(parents=True)
    return path


def wrong(config: Path, text: str) -> DeployKitError:
    config.write_text(text)
    with pytest.raises(DeployKitError) as caught:
        links.find_device("jetson")
    return caught.value


def test_a_device_is_found_by_its_name(config: Path) -> None:
    config.write_text(JETSON)

    assert links.find_device("jetson") == Device(
        name="jetson", link="ssh", address="user@orin:2222", accelerator="cuda:0", profile="jetson-orin-nano"
    )


def test_the_working_folders_entry_wins(config: Path) -> None:
    config.write_text(JETSON)
    Path("devices.yaml").write_text("jetson:\n  link: ssh://other\n")

    assert links.find_device("jetson").address == "other"


def test_without_xdg_the_file_lies_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert named_devices.user_file() == tmp_path / ".config" / "deploykit" / "devices.yaml"


def test_this_machine_needs_no_entry() -> None:
    assert links.find_device("local") == links.LOCAL


def test_an_address_is_a_device_of_its_own() -> None:
    assert links.find_device("ssh://me@orin:22") == Device(name="me@orin:22", link="ssh", address="me@orin:22")


def test_where_none_is_configured_the_line_that_adds_one_is_given() -> None:
    with pytest.raises(DeviceError) as caught:
        links.find_device("jetson")

    assert str(caught.value) == "no device is called 'jetson': none is configured"
    assert (caught.value.hint, caught.value.exit_code) == ("deploykit devices add jetson ssh://USER@HOST", 4)


@pytest.mark.parametrize("name", ["a b", "-x", "a\nb"])
def test_a_name_that_no_device_can_have_is_not_in_the_line(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        links.find_device(name)

    assert caught.value.hint == "deploykit devices add NAME ssh://USER@HOST"


def test_a_misspelt_name_gives_the_nearest(config: Path) -> None:
    config.write_text(JETSON)

    with pytest.raises(DeviceError) as caught:
        links.find_device("jeston")

    assert (str(caught.value), caught.value.hint) == ("no device is called 'jeston'", "did you mean 'jetson'?")


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("jetson: {link: local, acelerator: cpu}", "jetson: unknown key 'acelerator'", "did you mean 'accelerator'?"),
        ("jetson: {accelerator: cpu}", "jetson: 'link' is missing", "expected 'local' or 'ssh://user@host:port'"),
        ("jetson: ssh://orin", "jetson: expected a table, found 'ssh://orin'", "link: ssh://user@host"),
        ("[jetson]", "expected a table of devices by name, found ['jetson']", ""),
        (
            "jetson: {link: local, accelerator: gpu}",
            "jetson.accelerator: expected 'cpu', 'cuda:N', 'dla:N', 'GPU' or 'NPU', found 'gpu'",
            "e.g. cuda:0",
        ),
        ("jetson: {link: local, python: 3}", "jetson.python: input should be a valid string, found 3", ""),
    ],
)
def test_a_wrong_entry_is_told_with_its_file_and_key(config: Path, text: str, words: str, hint: str) -> None:
    error = wrong(config, text)

    assert (str(error), error.hint, error.exit_code) == (f"{config}: {words}", hint, 2)


def test_a_file_that_is_no_yaml_is_told(config: Path) -> None:
    error = wrong(config, "jetson: {link: local")

    assert str(error).startswith(f"{config}: not YAML: ")
    assert error.hint == "correct the line it names"


@pytest.mark.parametrize(
    "link", ["orin", "ssh://", "ssh://me@", "ssh://orin:port", "ssh://orin:99999", "ssh://-oProxy"]
)
def test_a_link_that_is_none_is_refused(link: str) -> None:
    with pytest.raises(RecipeError) as caught:
        named_devices.add_device("jetson", {"link": link})

    assert str(caught.value) == (f"device 'jetson'.link: expected 'local' or 'ssh://user@host:port', found '{link}'")
    assert caught.value.hint == "e.g. ssh://user@orin:22"


def test_a_password_in_a_link_is_refused_and_not_repeated(config: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        named_devices.add_device("jetson", {"link": "ssh://me:secret@orin"})

    assert str(caught.value) == "device 'jetson'.link: a password does not belong here"
    assert caught.value.hint == "use a key: ssh-copy-id USER@HOST"
    assert not config.exists()


def test_add_writes_what_find_reads(config: Path) -> None:
    made = named_devices.add_device(
        "nano", {"link": "ssh://me@nano", "accelerator": "dla:0", "python": "/opt/venv/bin/python3"}
    )

    assert links.find_device("nano") == made
    assert config.read_text() == "nano:\n  link: ssh://me@nano\n  accelerator: dla:0\n  python: /opt/venv/bin/python3\n"


def test_add_keeps_the_others_and_replaces_its_own(config: Path) -> None:
    config.write_text(JETSON + "nano:\n  link: ssh://old\n")

    named_devices.add_device("nano", {"link": "ssh://new"}, replace=True)

    assert (links.find_device("jetson").profile, links.find_device("nano").address) == ("jetson-orin-nano", "new")


def test_a_device_does_not_take_the_place_of_another_unless_it_is_said(config: Path) -> None:
    config.write_text("nano:\n  link: ssh://old\n")

    with pytest.raises(RequestError) as caught:
        named_devices.add_device("nano", {"link": "ssh://new"})

    assert str(caught.value) == "a device is called 'nano' already: ssh://old, cpu"
    assert caught.value.hint == "choose another name, or replace it with --replace"
    assert links.find_device("nano").address == "old"
    assert named_devices.add_device("nano", {"link": "ssh://old"}).address == "old"


@pytest.mark.parametrize("name", ["local", "a b", "../x", ""])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        named_devices.add_device(name, {"link": "ssh://orin"})

    assert str(caught.value).startswith(f"'{name}': expected a name of letters, digits, '.', '_' and '-'")


def test_remove_forgets_a_device(config: Path) -> None:
    config.write_text(JETSON)

    assert named_devices.remove_device("jetson") == config
    assert set(named_devices.known_devices()) == {"local"}


def test_remove_of_an_unknown_name_gives_the_nearest(config: Path) -> None:
    config.write_text(JETSON)

    with pytest.raises(DeviceError) as caught:
        named_devices.remove_device("jetso")

    assert (str(caught.value), caught.value.hint) == ("no device is called 'jetso'", "did you mean 'jetson'?")


def test_the_example_can_be_read() -> None:
    example = Path(__file__).parents[2] / "recipes" / "devices.example.yaml"

    known = named_devices._read_entries(example)

    assert {named_devices.device_of_entry(name, entry).link for name, entry in known.items()} == {"local", "ssh"}
