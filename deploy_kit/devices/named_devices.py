"""``devices.yaml``: the devices that a user has named, read strictly.

    jetson:
      link: ssh://user@orin:22
      accelerator: cuda:0
      profile: jetson-orin-nano
      python: /opt/venv/bin/python3

One file is in the user's configuration folder, another may be in the working folder, whose entries take precedence.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deploy_kit.base.errors import DeviceError, RecipeError, RequestError, nearest
from deploy_kit.base.plain_text import one_line, shown
from deploy_kit.base.text_files import read_yaml
from deploy_kit.base.user_folders import config_folder
from deploy_kit.base.whole_files import write_whole
from deploy_kit.devices import links
from deploy_kit.devices.links import LOCAL
from deploy_kit.records.artifacts import Device

_FILE = "devices.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SSH = re.compile(
    r"ssh://((?P<user>[^@:/\s\x00-\x1f\x7f-\x9f-][^@:/\s\x00-\x1f\x7f-\x9f]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[\w.%][\w.%-]*)(:(?P<port>\d{1,5}))?/?",
    re.ASCII,
)
_ACCELERATOR = r"^(cpu|cuda:\d+|dla:\d+|GPU(\.\d+)?|NPU)$"
_LINKS = "expected 'local' or 'ssh://user@host:port'"


class NamedDevice(BaseModel):
    """One device as a user writes it.

    Attributes:
        link: ``local``, or ``ssh://[user@]host[:port]``; the host may be an alias of the user's SSH configuration. The
            address of a third party's link begins with the link's name, ``NAME://…``.
        accelerator: Processor that engines run on: ``cpu``, ``cuda:N``, ``dla:N``, ``GPU`` or ``NPU``.
        profile: A note of the user's; nothing is derived from it.
        python: Command of the Python interpreter on the device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    link: str
    accelerator: Annotated[str, Field(pattern=_ACCELERATOR)] = "cpu"
    profile: str | None = None
    python: Annotated[str, Field(min_length=1)] = "python3"


def user_file() -> Path:
    """Return the path of the user's own file, by the XDG base directory specification.

    Raises:
        DeviceError: No home is known, so that the user has none.
    """
    folder = config_folder()
    if folder is None:
        raise DeviceError(
            "no folder for the user's own devices: HOME is not set, and no user of this number is known",
            hint="set HOME or XDG_CONFIG_HOME, or write devices.yaml in the current folder",
        )
    return folder / _FILE


def _files() -> tuple[Path, ...]:
    """List the files that are read: the user's, where there is one, and the working folder's, which goes over it."""
    folder = config_folder()
    return (*((folder / _FILE,) if folder is not None else ()), Path(_FILE))


def known_devices() -> dict[str, Device]:
    """Read both files, and add this machine.

    Raises:
        RecipeError: A file is not YAML, or an entry is wrong; the message names file and key.
    """
    known = {LOCAL.name: LOCAL}
    for path in _files():
        known |= {name: device_of_entry(name, entry) for name, entry in _read_entries(path).items()}
    return known


def find_named(name: str) -> Device:
    """Return a device by its name, or by its address.

    Raises:
        DeviceError: No device has this name.
        RecipeError: The address is not valid, or a file of devices is wrong.
    """
    kind, separator, address = name.partition("://")
    if separator and kind != LOCAL.link and kind in links.CATALOGUE.names():
        return device_of_entry(address.rstrip("/"), NamedDevice(link=name))
    known = known_devices()
    if name in known:
        return known[name]
    if set(known) == {LOCAL.name}:
        named = name if _NAME.fullmatch(name) else "NAME"
        raise DeviceError(
            f"no device is called '{name}': none is configured",
            hint=f"deploykit devices add {named} ssh://USER@HOST",
        )
    raise DeviceError(f"no device is called '{name}'", hint=nearest(name, known))


def add_device(name: str, entry: dict[str, Any], *, replace: bool = False) -> Device:
    """Write an entry to the user's file.

    Args:
        name: Name of the device.
        entry: Keys and values as in the file.
        replace: Whether it may take the place of another entry of the same name.

    Raises:
        RecipeError: The name, the link, or the accelerator is not valid.
        RequestError: Another device has the name.
    """
    if name == LOCAL.name or not _NAME.fullmatch(name):
        raise RecipeError(
            f"{shown(name)}: expected a name of letters, digits, '.', '_' and '-' other than '{LOCAL.name}'",
            hint="deploykit devices add jetson ssh://user@host",
        )
    device = device_of_entry(name, _validated_entry(f"device '{name}'", entry))
    path = user_file()
    earlier = known_devices().get(name)
    if earlier is not None and earlier != device and not replace:
        address = f"{earlier.link}://{earlier.address}" if earlier.address else earlier.link
        raise RequestError(
            f"a device is called '{name}' already: {address}, {earlier.accelerator}",
            hint="choose another name, or replace it with --replace",
        )
    _write_entries(path, _read_entries(path) | {name: _validated_entry(f"device '{name}'", entry)})
    return device


def remove_device(name: str) -> Path:
    """Remove an entry from the working folder's file, or else from the user's, and return the file's path.

    Raises:
        DeviceError: No entry has this name.
    """
    for path in reversed(_files()):
        entries = _read_entries(path)
        if name in entries:
            _write_entries(path, {key: entry for key, entry in entries.items() if key != name})
            return path
    raise DeviceError(f"no device is called '{name}'", hint=nearest(name, set(known_devices()) - {LOCAL.name}))


def device_of_entry(name: str, entry: NamedDevice) -> Device:
    """Convert an entry to its record.

    Raises:
        RecipeError: The link is not valid, or contains a password.
    """
    kind, _, address = entry.link.partition("://")
    if entry.link == LOCAL.link:
        address = ""
    elif re.match(r"^[^/@]*:[^/@]*@", address):
        raise RecipeError(
            f"device '{name}'.link: a password does not belong here", hint="use a key: ssh-copy-id USER@HOST"
        )
    elif not _is_address(kind, address, entry.link):
        raise RecipeError(f"device '{name}'.link: {_LINKS}, found {shown(entry.link)}", hint="e.g. ssh://user@orin:22")
    return Device(
        name=name,
        link=kind,
        address=address.rstrip("/"),
        accelerator=entry.accelerator,
        profile=entry.profile,
        python=entry.python,
    )


def _is_address(kind: str, address: str, link: str) -> bool:
    """Return whether a link is an address: of an SSH server, or anything for a third party's kind of link."""
    if kind != "ssh":
        return bool(address) and kind != LOCAL.link and kind in links.CATALOGUE.names()
    parts = _SSH.fullmatch(link)
    return parts is not None and 0 < int(parts["port"] or 22) < 65536


def _read_entries(path: Path) -> dict[str, NamedDevice]:
    try:
        data = read_yaml(path) or {}
    except FileNotFoundError:
        return {}
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: expected a table of devices by name, found {shown(data)}")
    return {str(name): _validated_entry(f"{path}: {one_line(str(name))}", entry) for name, entry in data.items()}


def _validated_entry(where: str, data: Any) -> NamedDevice:
    if not isinstance(data, dict):
        raise RecipeError(f"{where}: expected a table, found {shown(data)}", hint="link: ssh://user@host")
    try:
        return NamedDevice.model_validate_json(json.dumps(data))
    except ValidationError as error:
        # An unknown key comes first: a key that is missing is most often one that was misspelled.
        first = sorted(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{where}: unknown key '{key}'", hint=nearest(key, NamedDevice.model_fields)) from error
        if first["type"] == "missing":
            raise RecipeError(f"{where}: '{key}' is missing", hint=_LINKS) from error
        if key == "accelerator" and first["type"] == "string_pattern_mismatch":
            raise RecipeError(
                f"{where}.accelerator: expected 'cpu', 'cuda:N', 'dla:N', 'GPU' or 'NPU', found "
                f"{shown(first['input'])}",
                hint="e.g. cuda:0",
            ) from error
        raise RecipeError(
            f"{where}.{key}: {first['msg'][0].lower()}{first['msg'][1:]}, found {shown(first['input'])}"
        ) from error


def _write_entries(path: Path, entries: dict[str, NamedDevice]) -> None:
    data = {name: entry.model_dump(exclude_defaults=True) for name, entry in sorted(entries.items())}
    write_whole(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True) if data else "{}\n")
