"""What can end a TensorRT build: each said in words, and nothing half-written is left behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_plans import convolution_graph

from deploy_kit.base.errors import BuildError, EngineCrashError, InputError, StoreError
from deploy_kit.base.lazy import install_line, present
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.devices.isolate import Child
from deploy_kit.engines import tensorrt_rtx
from deploy_kit.engines._nvidia import network
from deploy_kit.engines._nvidia.options import TensorRtOptions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx")),
]
OPTIONS = {"compute_capabilities": ["8.9"]}

# The real worker, in a process of which something is wrong.
CROOKED = "from deploy_kit.programs import worker\n{}\nworker.main()"
NO_ROOM = CROOKED.format("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))")
KILLED = CROOKED.format(
    "import os, signal\n"
    "worker.ProgressEvent = lambda **facts: os.kill(os.getpid(), signal.SIGKILL)\n"
    "from deploy_kit.engines._nvidia import build\n"
    "build.ProgressEvent = worker.ProgressEvent"
)


def build(onnx_file: Path, folder: Path, script: str = "", **more: object) -> dict[str, object]:
    """Build in a worker."""
    command = (sys.executable, "-c", script) if script else ()
    with Child(command) as child:
        paths = {"onnx": str(onnx_file), "folder": str(folder)}
        return child.ask("build", str(onnx_file), engine="tensorrt_rtx", options=OPTIONS, **paths, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return convolution_graph(tmp_path / "small.onnx")


def test_a_file_beyond_protobufs_limit_is_refused_before_it_is_parsed(folder: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(2**31)  # sparse: takes no room

    with pytest.raises(InputError) as caught:
        build(large, folder)

    assert str(caught.value) == f"{large}: expected an ONNX file below 2 GiB (protobuf's limit), found 2.0 GiB"
    assert "save_as_external_data=True" in caught.value.hint
    assert list(folder.iterdir()) == []


def test_one_byte_less_is_not_refused_for_its_size(tmp_path: Path) -> None:
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(2**31 - 1)

    network.verify_onnx_size(tmp_path / "large.onnx")


def test_weights_beside_the_file_are_found(graph: Path, folder: Path, tmp_path: Path) -> None:
    import onnx

    external = tmp_path / "external.onnx"
    onnx.save(onnx.load(graph), external, save_as_external_data=True, location="external.data", size_threshold=0)

    build(external, folder)

    assert (folder / "model.rtx.plan").stat().st_size > 0


def test_weights_that_are_not_beside_the_file_are_named(graph: Path, folder: Path, tmp_path: Path) -> None:
    import onnx

    external = tmp_path / "external.onnx"
    onnx.save(onnx.load(graph), external, save_as_external_data=True, location="external.data", size_threshold=0)
    (tmp_path / "external.data").unlink()

    with pytest.raises(BuildError, match="Failed to import initializer: w") as caught:
        build(external, folder)

    assert caught.value.hint == "its weights are in a separate file, which is missing beside this one or cut off"

    assert list(folder.iterdir()) == []


def test_a_file_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build(tmp_path / "none.onnx", folder)

    assert str(caught.value) == f"{tmp_path / 'none.onnx'}: cannot be read: No such file or directory"


def test_an_unknown_operator_is_named_with_its_node(folder: Path, tmp_path: Path) -> None:
    graph = convolution_graph(tmp_path / "odd.onnx", operator="Swirl", domain="com.example")

    with pytest.raises(BuildError, match="Swirl") as caught:
        build(graph, folder)

    assert "tensorrt_rtx's parser refuses it:\nnode 'the_node' (Swirl): " in str(caught.value)
    assert caught.value.hint == "it has no such operator: replace it before export; plugins are not loaded"
    assert list(folder.iterdir()) == []


def test_a_plan_that_is_not_written_whole_leaves_nothing_and_says_why(graph: Path, folder: Path) -> None:
    with pytest.raises(StoreError) as caught:
        build(graph, folder, NO_ROOM)

    assert str(caught.value) == f"{folder / 'model.rtx.plan'}: not written whole: File too large"
    assert caught.value.hint == "see what is limited or full: ulimit -f; df -h"
    assert list(folder.iterdir()) == []


def test_a_killed_build_is_told_as_out_of_memory(graph: Path, folder: Path) -> None:
    with pytest.raises(EngineCrashError) as caught:
        build(graph, folder, KILLED)

    assert str(caught.value) == f"{graph}: the worker process died in 'build' with SIGKILL"
    assert "out of memory" in caught.value.hint
    assert (caught.value.exit_code, list(folder.iterdir())) == (5, [])


def test_progress_of_the_builder_is_heard(graph: Path, folder: Path) -> None:
    heard: list[ProgressEvent] = []

    build(graph, folder, on_progress=heard.append)

    steps = [event for event in heard if event.text == "Building engine"]
    assert {event.stage for event in heard} == {"build"}
    assert steps[0].done == 0
    assert [event.done for event in steps] == sorted(event.done for event in steps)
    assert steps[-1].done >= steps[-1].total - 1 > 0  # the last step is told as the end of the phase


def test_a_listener_that_is_gone_cancels_the_native_builder(graph: Path, folder: Path) -> None:
    heard: list[ProgressEvent] = []

    def hang_up(event: ProgressEvent) -> None:
        heard.append(event)
        raise BrokenPipeError

    with pytest.raises(BuildError, match="the build was canceled"):
        tensorrt_rtx.build(graph, folder, TensorRtOptions(compute_capabilities=("8.9",)), hang_up)

    assert (len(heard), list(folder.iterdir())) == (1, [])


def test_an_interrupt_ends_the_worker_and_leaves_nothing(graph: Path, folder: Path) -> None:
    def interrupt(event: ProgressEvent) -> None:
        raise KeyboardInterrupt

    with Child() as child:
        process = child._process
        paths = {"onnx": str(graph), "folder": str(folder)}
        with pytest.raises(KeyboardInterrupt):
            child.ask("build", "x", engine="tensorrt_rtx", options=OPTIONS, on_progress=interrupt, **paths)

    assert process.poll() is not None
    assert list(folder.glob("*.plan")) == []


# The command line, which takes its time over one event: this build is over within 0.1 s, and Ctrl-C must come before.
SLOW = """
import time
from deploy_kit import cli
from deploy_kit.cli import _console

show = _console.Console.on_progress

def show_and_wait(self, event):
    show(self, event)
    if event.text == "Building engine":
        time.sleep(60)

_console.Console.on_progress = show_and_wait
cli.main()
"""


def test_ctrl_c_in_a_terminal_ends_with_130_and_an_empty_store(graph: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    words = ["build", str(graph), "--engine", "tensorrt_rtx", "--compute-capability", "8.9", "--store", str(store)]
    command = [sys.executable, "-c", SLOW, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        begun = next((line for line in process.stderr if line.startswith("build: Building engine")), "")
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()

    assert begun
    assert (process.returncode, "nothing is half-written" in said) == (130, True)
    assert list(store.glob(".new-*")) == list(store.glob("build/*")) == []


# The collector comes while the library logs, and finds an error of an earlier build in a cycle.
COLLECTED = """
import gc, pathlib, sys
from deploy_kit.engines import tensorrt_rtx
from deploy_kit.engines._nvidia import LibraryMessages, build
from deploy_kit.base.errors import BuildError

class Collecting(LibraryMessages):
    def __init__(self, trt):
        super().__init__(trt)
        logger = type(self.logger)
        say = logger.log
        logger.log = lambda *args: (gc.collect(), say(*args))

graph, folder = map(pathlib.Path, sys.argv[1:])
options = tensorrt_rtx.TensorRtOptions(compute_capabilities=("8.9",), opt_shapes=("input:1x3x8x8",))
build.Words = Collecting
gc.disable()
for _ in range(2):
    try:
        tensorrt_rtx.build(graph, folder, options)
    except BuildError as error:
        cycle = [error]
        cycle.append(cycle)
        del cycle
print("ended")
"""


def test_an_error_that_is_kept_does_not_hold_up_later_builds(graph: Path, folder: Path) -> None:
    command = [sys.executable, "-c", COLLECTED, str(graph), str(folder)]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert ended.stdout == "ended\n", ended.stderr
