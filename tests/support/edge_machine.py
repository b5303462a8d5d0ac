"""An emulated edge device: a Debian arm64 root under qemu-user, with sshd on a loopback port.

    python tests/support/edge_machine.py build            make the root, once; say where it is
    python tests/support/edge_machine.py serve            run sshd in it until Ctrl-C; say how to log in
    python tests/support/edge_machine.py run COMMAND …    run one command in it

It needs root, Linux, and Debian's packages debootstrap, qemu-user-static, openssh-client and util-linux. Everything
runs in mount and PID namespaces of its own that end with this program, however it ends: no mount and no process can
be left behind. The root is read-only while it runs; /home, /tmp and /run are in memory and new each time.

The root is kept under ``$XDG_CACHE_HOME/deploykit-tests/edge``, named by what it was built from, and built aside and
renamed when whole. Its programs are real arm64 ones, so what they compute is what an arm64 machine computes. How long
they take says nothing.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
SUITE, PYTHON = "bookworm", "3.11"
DEBIAN = ("python3", "openssh-server")
WHEELS = ("numpy", "onnxruntime", "ncnn")
USER = "edge"
_GLIBC = (17, 27, 28)  # wheels for these minor versions of glibc 2 run on Debian 12 (2.36)
TOOLS = ("debootstrap", "qemu-aarch64-static", "ssh-keygen", "unshare", "setpriv")
PACKAGES = "debootstrap qemu-user-static openssh-client util-linux"  # Debian's, which have the tools

_SSHD = (
    "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-oListenAddress=127.0.0.1", "-oHostKey=/run/edge/host_key",
    "-oAuthorizedKeysFile=/run/edge/authorized_keys", "-oPidFile=none", "-oUsePAM=no", "-oPasswordAuthentication=no",
    "-oSubsystem=sftp internal-sftp",
)  # fmt: skip
# Password '*': none fits, but the account is not locked, and sshd lets a key in.
_USERADD = ("useradd", "--no-create-home", "--uid", "1000", "--shell", "/bin/sh", "--password", "*")

# In namespaces of its own. $1: the root, $2: a folder of the host to show as /mnt/host, or empty; then the command.
# An entry for arm64 that the kernel already has is taken if it works inside a chroot (flag F). The kernel forgets an
# entry with the last mount of binfmt_misc (from Linux 6.7 on), so on a machine without one nothing stays.
_ENTER = r"""
set -eu
root=$1 host=$2; shift 2
mount --make-rprivate /
registry=/proc/sys/fs/binfmt_misc
[ -e $registry/register ] || mount -t binfmt_misc binfmt_misc $registry
if ! cat $registry/*aarch64* 2>/dev/null | grep -q '^flags:.*F'; then
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":deploykit-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):OCF" > $registry/register
fi
[ -n "$root" ] || exec "$@"
mount --bind "$root" "$root"
[ -z "$host" ] || mount --bind "$host" "$root/mnt/host"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
for folder in dev/shm home run tmp; do mount -t tmpfs tmpfs "$root/$folder"; done
chmod 755 "$root/home" "$root/run"
mkdir -p "$root/run/sshd" "$root/run/edge"
cp -r "$root/etc/skel" "$root/home/edge"
chown -R 1000:1000 "$root/home/edge"
[ -z "${EDGE_KEYS:-}" ] || install -m 600 -t "$root/run/edge" "$EDGE_KEYS/host_key"
[ -z "${EDGE_KEYS:-}" ] || install -m 644 "$EDGE_KEYS/id_ed25519.pub" "$root/run/edge/authorized_keys"
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/home/edge \
    ${QEMU_CPU:+QEMU_CPU="$QEMU_CPU"} chroot "$root" "$@"
"""


class EdgeError(Exception):
    """Why there is no emulated device here, in words."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A device that answers.

    Attributes:
        host: Its address.
        port: Port of its sshd.
        user: To log in as.
        home: A home of its user's: ``.ssh`` has the private key that opens it, and its host key.
    """

    host: str
    port: int
    user: str
    home: Path

    @property
    def address(self) -> str:
        """As a device's link has it."""
        return f"{self.user}@{self.host}:{self.port}"

    @property
    def ssh(self) -> tuple[str, ...]:
        """The command that logs in."""
        key, hosts = self.home / ".ssh/id_ed25519", self.home / ".ssh/known_hosts"
        options = ("-o", f"UserKnownHostsFile={hosts}", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes")
        return ("ssh", "-p", str(self.port), "-i", str(key), *options, f"{self.user}@{self.host}")


def recipe() -> dict[str, object]:
    """Say all that decides what is in the root."""
    pins = [line for line in CONSTRAINTS.read_text().splitlines() if line.startswith(WHEELS)]
    return {"form": 1, "suite": SUITE, "debian": DEBIAN, "python": PYTHON, "wheels": WHEELS, "pins": pins}


def home() -> Path:
    """Give the folder that keeps roots."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "deploykit-tests" / "edge"


def why_unavailable() -> str:
    """Say why this machine cannot have the device; empty if nothing is known to stand in the way."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: {PACKAGES})"
    return "" if os.geteuid() == 0 else "it needs root, for mounts and chroot"


def build() -> Path:
    """Give the root; make it if it is not there.

    Raises:
        EdgeError: This machine cannot have it, or a step of it failed.
    """
    why = why_unavailable()
    if why:
        raise EdgeError(why)
    stamp = json.dumps(recipe(), indent=1) + "\n"
    root = home() / f"root-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at a time would build it twice
        if root.exists():
            return root
        for older in home().glob("root-*"):
            shutil.rmtree(older)
        aside = root.with_name(root.name + ".aside")
        try:
            _fill(aside)
            (aside / "etc/deploykit-edge.json").write_text(stamp)
            aside.rename(root)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return root


def inside(root: Path | None, command: Sequence[str], host: Path | None = None) -> tuple[str, ...]:
    """Write a command as one that runs it in the root, and that ends with the process that starts it.

    Args:
        root: The root; None runs a program of the host where arm64 programs run too.
        command: The program and its arguments.
        host: A folder to show as ``/mnt/host``, writable.
    """
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    arguments = (str(root or ""), str(host or ""), *command)
    return ("setpriv", "--pdeathsig", "KILL", *namespaces, "sh", "-c", _ENTER, "edge", *arguments)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Served]:
    """Run sshd in the root, on a free port of 127.0.0.1 and with keys of its own.

    Raises:
        EdgeError: It ended, or did not answer in time.
    """
    with tempfile.TemporaryDirectory(prefix="deploykit-edge-") as folder:
        home, port = Path(folder), _free_port()
        keys = home / ".ssh"
        keys.mkdir(mode=0o700)
        for name in ("host_key", "id_ed25519"):
            key = ("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(keys / name))
            _quietly("ssh-keygen", ("ssh-keygen", *key))
        public = " ".join((keys / "host_key.pub").read_text().split()[:2])
        (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
        command = inside(root, (*_SSHD, f"-oPort={port}", f"-oAllowUsers={USER}"))
        with (home / "sshd.log").open("w") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=log, env=os.environ | {"EDGE_KEYS": str(keys)}
            )
            try:
                _await(process, port, home / "sshd.log")
                yield Served(host="127.0.0.1", port=port, user=USER, home=home)
            finally:
                process.kill()  # the namespace's first process dies with it, and all others with that one
                process.wait()


def _fill(root: Path) -> None:
    """Lay out Debian, the user and the wheels."""
    debian = ("--arch=arm64", "--variant=minbase", f"--include={','.join(DEBIAN)}", SUITE, str(root))
    _quietly("debootstrap", inside(None, ("debootstrap", *debian)))
    _quietly("useradd", inside(None, ("chroot", str(root), *_USERADD, USER)))
    (root / "mnt/host").mkdir()
    for left in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / left)
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in _GLIBC]
    target = root / f"usr/local/lib/python{PYTHON}/dist-packages"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(target))
    wanted = ("--python-version", PYTHON, "--only-binary=:all:", "--constraint", str(CONSTRAINTS), *WHEELS)
    _quietly("pip", (*pip, *platforms, *wanted))


def _quietly(step: str, command: Sequence[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise EdgeError(f"{step} failed with {done.returncode}: {_last_words(done.stdout)}")


def _last_words(text: str) -> str:
    """Give the end of what a program has said, in one line."""
    return " / ".join(line.strip() for line in text.splitlines()[-4:] if line.strip()) or "it said nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(process: subprocess.Popen[bytes], port: int, log: Path, limit_s: float = 60) -> None:
    """Wait until sshd says who it is."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise EdgeError(f"sshd ended with {process.returncode}: {_last_words(log.read_text())}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
                if line.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.1)
    raise EdgeError(f"sshd did not answer in {limit_s:g} s: {_last_words(log.read_text())}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("build", "serve", "run"))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    try:
        root = build()
        if asked.what == "run":
            return subprocess.run(inside(root, asked.command or ("/bin/sh",))).returncode
        print(root)
        if asked.what == "serve":
            with serving(root) as device, contextlib.suppress(KeyboardInterrupt):
                print(" ".join(device.ssh), flush=True)
                while True:
                    time.sleep(3600)
    except EdgeError as error:
        print(f"no emulated device: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
