"""Workers of a Ray cluster: one of this machine's own for the moment, or one that is there, by its address."""

import contextlib
import functools
import os
import secrets
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from deploy_kit.base import errors
from deploy_kit.base.errors import DeployKitError, DeviceError, RequestError
from deploy_kit.base.lazy import install_line, need, present
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.machine.environment import library_versions, usable_cores
from deploy_kit.parallel import ONE_PROCESS, R, T, Workers

NAME = "ray"
_AHEAD = 2  # items handed out for each worker, so that none waits for the order of the results
_ANSWER_S = 5.0
_RETRIES = 3  # of an item whose worker or node was lost
_STORE_BYTES = 256 << 20  # of shared memory for what is on the way
# What decides a number: a worker with another version would compute other bits.
_COMPARED = ("python", "deploykit", "torch", "numpy", "onnx", "onnxruntime", "pillow")
# Ray 2.60 asks for statistics on first use and writes a token into the home unless these say otherwise.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@contextlib.contextmanager
def open_workers(on: str, say: Callable[[str], None], *, n: int = 0, verified: bool = False) -> Iterator[Workers]:
    """Open what ``--on`` names: ``ray``, or ``ray://HOST:PORT`` for a cluster that is there.

    Without Ray, `say` is told what it would gain, and everything is computed in this process.

    Args:
        on: The place; an empty text is this process.
        say: Called with what a user should know.
        n: Number of workers on this machine; 0 takes its cores.
        verified: Whether the process that started this one has compared the libraries of the cluster.

    Raises:
        RequestError: No such place.
        DeviceError: The cluster cannot be reached, or its libraries have other versions.
    """
    kind, _, address = on.partition("://")
    host, _, port = address.rpartition(":")
    reachable = bool(host) and port.isdecimal() and int(port) <= 65535
    if on not in ("", NAME) and (kind != NAME or not reachable):
        raise RequestError(
            f"--on: expected 'ray' or 'ray://HOST:PORT', found '{on}'", hint="--on ray, or --on ray://head:6379"
        )
    if not on:
        yield ONE_PROCESS
    elif not present(NAME):
        say(
            f"Ray is not installed ({install_line(NAME)}): computing in this process; with it, logits and the "
            f"statistics of calibration are computed on {usable_cores()} workers here, or on those of a cluster"
        )
        yield ONE_PROCESS
    else:
        with _local(n or usable_cores()) if not address else _cluster(host, int(port), verified) as workers:
            yield workers


@contextlib.contextmanager
def _local(n: int) -> Iterator[Workers]:
    """Start Ray on this machine: asked for the loopback address, and closed by a token that is never written."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
    with temporary_folder() as folder, _environment({**_QUIET, **token}):
        options = {"num_cpus": n, "object_store_memory": _STORE_BYTES, "_temp_dir": str(folder)}
        with _connected("this machine", address="local", _node_ip_address="127.0.0.1", **options) as ray:
            yield _RayWorkers(ray, n)


@functools.cache  # Ray reads it once in a process
def _token() -> str:
    return secrets.token_hex(32)


@contextlib.contextmanager
def _cluster(host: str, port: int, verified: bool) -> Iterator[Workers]:
    address = f"{host}:{port}"
    try:  # Ray itself tries for minutes
        socket.create_connection((host.strip("[]"), port), timeout=_ANSWER_S).close()
    except OSError as error:
        raise DeviceError(
            f"Ray on {address}: {error.strerror or error}", hint="ray start --head there, or --on ray for this machine"
        ) from error
    with _environment(_QUIET), _connected(address, address=address) as ray:
        if not verified:
            _verify_versions(ray, _versions())
        yield _RayWorkers(ray, max(1, int(ray.cluster_resources().get("CPU", 1))))


@contextlib.contextmanager
def _connected(where: str, **options: Any) -> Iterator[Any]:
    ray = need(NAME, by="--on ray")
    ours = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise DeviceError(
            f"Ray on {where}: {str(error).strip().splitlines()[0] if str(error) else type(error).__name__}",
            hint="ray status --address HOST:PORT, or --on ray for this machine alone",
        ) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)  # Ray's own ends the process with a code that is no signal's
        yield ray
    finally:
        ray.shutdown()


def _verify_versions(ray: Any, here: dict[str, str]) -> None:
    """Compare the libraries of every node with this process's.

    Raises:
        DeviceError: A version differs.
    """
    strategies = need("ray.util.scheduling_strategies", by="--on ray")
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        ray.remote(_versions)
        .options(scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote()
        for node in nodes
    ]
    for node, there in zip(nodes, ray.get(asked), strict=True):
        unlike = [
            f"{name} {there.get(name, 'none')} and {text}" for name, text in here.items() if there.get(name) != text
        ]
        if unlike:
            raise DeviceError(
                f"Ray node {node['NodeManagerAddress']}: other versions than here: {', '.join(unlike)}",
                hint="install the same versions there as here: pip install -c constraints.txt deploykit",
            )


def _versions() -> dict[str, str]:
    return {name: text for name, text in library_versions() if name in _COMPARED}


class _RayWorkers:
    """The workers of a connected cluster."""

    def __init__(self, ray: Any, n: int) -> None:
        self._ray, self.n = ray, n
        self.place = f"{NAME}://{ray.get_runtime_context().gcs_address}"

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Hand items out, a bounded number ahead; an item whose worker was lost is handed out again."""
        task = self._ray.remote(_told).options(num_cpus=1, max_retries=_RETRIES)
        waiting, left = deque[Any](), iter(items)
        while True:
            while len(waiting) < _AHEAD * self.n and (item := next(left, None)) is not None:
                waiting.append(task.remote(work, item))
            if not waiting:
                return
            try:
                result, told = self._ray.get(waiting.popleft())
            except self._ray.exceptions.RayTaskError as error:
                raise DeviceError(
                    f"Ray: a worker cannot do it: {str(error).strip().splitlines()[-1]}",
                    hint="install the same versions there as here: pip install -c constraints.txt deploykit",
                ) from error
            except self._ray.exceptions.RayError as lost:
                raise DeviceError(
                    f"Ray: a worker was lost {_RETRIES + 1} times over the same images: {str(lost).splitlines()[0]}",
                    hint="look at its memory: ray status; what was finished is kept, the same command goes on",
                ) from lost
            if told is not None:
                kind, message, hint = told
                raise getattr(errors, kind, DeviceError)(message, hint=hint)
            yield result


def _told(work: Callable[[T], R], item: T) -> tuple[R | None, tuple[str, str, str] | None]:
    """Work in a worker; an error of ours comes back as texts, whatever its class takes to be made again."""
    try:
        return work(item), None
    except DeployKitError as error:
        return None, (type(error).__name__, str(error), error.hint)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for Ray's processes; those that the user has set stay."""
    mine = {name: text for name, text in values.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)
