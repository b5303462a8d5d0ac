"""Tests of isolate.py with real processes: crashes become errors that say what died, and noise is never a reply."""

import os
import subprocess
import sys

import pytest

from deploy_kit.base.errors import EngineCrashError, InputError, StageError
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.devices.isolate import Child, describe_exit

NO_CORE = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
SEGFAULT = NO_CORE + "import ctypes; ctypes.string_at(0)"

# Answers each job with facts about the process; knows only the standard library and `protocol`.
ECHO = """
import os, sys
from deploy_kit.devices import protocol
for line in sys.stdin:
    job = protocol.read_job(line)
    facts = {"pid": os.getpid(), "session": os.getsid(0), "op": job.op, "arguments": job.arguments}
    sys.stdout.write(protocol.reply_line(protocol.Reply(result=facts)))
    sys.stdout.flush()
"""

# The real worker, with one operation that prints in each way native code and Python can.
NOISY = """
import ctypes, os
from deploy_kit.programs import worker

FAKE = '{"result": {"fake": true}, "error": "", "hint": "", "error_class": ""}'

def noisy(self, arguments):
    print(FAKE, flush=True)
    os.write(1, (FAKE + "\\n").encode())
    libc = ctypes.CDLL(None)
    libc.puts(FAKE.encode())
    libc.fflush(None)
    return {"fake": False}

worker.WorkerProgram.environment = noisy
worker.main()
"""


def python(script, *flags):
    return (sys.executable, *flags, "-c", script)


def crash(script, op="infer", about="model.xml"):
    """Give the error that comes of asking a process that runs `script`."""
    with Child(python(script)) as child, pytest.raises(EngineCrashError) as caught:
        child.ask(op, about)
    return caught.value


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_segfault_names_the_file_the_operation_and_the_signal():
    error = crash(SEGFAULT, op="open", about="build/int8/model.xml")

    assert str(error) == "build/int8/model.xml: the worker process died in 'open' with SIGSEGV"


def test_a_segfault_hints_at_the_engine():
    assert crash(SEGFAULT).hint == (
        "this is a fault of the engine's native code, not of the file format: "
        "quantize for this engine (see `deploykit inspect FILE`), or try another engine version"
    )


def test_a_segfault_is_a_failed_stage():
    assert crash(SEGFAULT).exit_code == 5


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SIGABRT", "the engine's native code aborted; its last output is above"),
        (
            "SIGKILL",
            "killed from outside, most often because the machine is out of memory: close other programs, "
            "use a smaller batch, or bound a builder's scratch memory (-o workspace_mib=512)",
        ),
        ("SIGILL", "the engine's native code uses an instruction that this processor lacks"),
    ],
)
def test_each_signal_has_a_hint_of_its_own(name, hint):
    error = crash(f"{NO_CORE}import os, signal; os.kill(os.getpid(), signal.{name})")

    assert (str(error), error.hint) == (f"model.xml: the worker process died in 'infer' with {name}", hint)


def test_a_shells_word_for_a_kill_is_told_as_the_signal_it_was():
    error = crash("raise SystemExit(137)")

    assert str(error) == "model.xml: the worker process died in 'infer' with SIGKILL"
    assert "out of memory" in error.hint


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "exit code 1"), (128, "exit code 128"), (139, "SIGSEGV"), (255, "exit code 255"), (-9, "SIGKILL"),
     (-40, "signal 40")],
)  # fmt: skip
def test_codes_of_shells_and_of_processes_are_named_alike(code, name):
    assert describe_exit(code) == name


def test_an_exit_is_told_with_its_code():
    assert str(crash("raise SystemExit(7)")) == "model.xml: the worker process died in 'infer' with exit code 7"


def test_an_exit_has_no_hint_because_nothing_is_known():
    assert crash("raise SystemExit(7)").hint == ""


def test_a_worker_that_ends_well_without_an_answer_has_died_too():
    assert str(crash("")) == "model.xml: the worker process died in 'infer' with exit code 0"


def test_last_words_are_told():
    error = crash("import sys; sys.exit('terminate called after throwing an instance of std::bad_alloc')")

    assert str(error).endswith(
        "with exit code 1; its last output: terminate called after throwing an instance of std::bad_alloc"
    )


def test_only_the_last_of_many_words_are_told():
    error = crash("import sys; sys.exit('first' + 'x' * 5000 + 'last')")

    assert str(error).split("its last output: ")[1] == "x" * 595 + "last"


def test_last_words_that_are_no_text_do_not_hide_the_crash():
    error = crash("import os; os.write(2, b'bad \\xff byte'); os._exit(3)")

    assert str(error).endswith("with exit code 3; its last output: bad \N{REPLACEMENT CHARACTER} byte")


def test_a_crash_is_told_again_when_the_dead_worker_is_asked_again():
    with Child(python("raise SystemExit(7)")) as child:
        with pytest.raises(EngineCrashError):
            child.ask("open", "model.xml")

        with pytest.raises(EngineCrashError, match="died in 'infer' with exit code 7"):
            child.ask("infer", "model.xml")


def test_a_crash_in_a_later_job_names_that_job():
    script = ECHO.replace("    job =", f"    if 'infer' in line: {SEGFAULT.splitlines()[1]}\n    job =")
    with Child(python(NO_CORE + script)) as child:
        child.ask("open", "model.xml")

        with pytest.raises(EngineCrashError, match="died in 'infer' with SIGSEGV"):
            child.ask("infer", "model.xml")


def test_half_a_reply_is_a_crash():
    script = """
import os, signal, sys
sys.stdin.readline()
sys.stdout.write('{"result": {"samples_ms": [0.1, 0.')
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""

    assert str(crash(script)) == "model.xml: the worker process died in 'infer' with SIGKILL"


def test_the_operation_and_its_arguments_arrive():
    with Child(python(ECHO)) as child:
        answer = child.ask("open", "model.xml", path="a b/ä.xml", options={"threads": 2})

    assert (answer["op"], answer["arguments"]) == ("open", {"path": "a b/ä.xml", "options": {"threads": 2}})


def test_one_worker_answers_job_after_job():
    with Child(python(ECHO)) as child:
        first, second = child.ask("open", "model.xml"), child.ask("infer", "model.xml")

    assert first["pid"] == second["pid"]


def test_closing_ends_the_process():
    with Child(python(ECHO)) as child:
        pid = child.ask("open", "model.xml")["pid"]

    assert not alive(pid)


def test_an_error_on_our_side_ends_the_process_too():
    with pytest.raises(KeyboardInterrupt), Child(python(ECHO)) as child:
        pid = child.ask("open", "model.xml")["pid"]
        raise KeyboardInterrupt

    assert not alive(pid)


def test_a_process_that_ignores_its_closed_pipes_is_killed(monkeypatch):
    wait = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", lambda self, timeout=None: wait(self, timeout and 0.01))
    with Child(python(ECHO + "\nimport signal\nwhile True: signal.pause()")) as child:
        pid = child.ask("open", "model.xml")["pid"]

    assert not alive(pid)


def test_ctrl_c_in_the_terminal_does_not_reach_the_worker():
    with Child(python(ECHO)) as child:
        answer = child.ask("open", "model.xml")

    assert answer["session"] == answer["pid"]


def test_the_worker_finds_this_package_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with Child(python(ECHO, "-S")) as child:  # -S: nothing that is installed is on the path
        assert child.ask("open", "model.xml")["op"] == "open"


def test_the_environment_of_the_user_reaches_the_worker(monkeypatch):
    monkeypatch.setenv("VARIABLE_OF_THE_USER", "42")
    script = ECHO.replace('"op": job.op', '"op": os.environ["VARIABLE_OF_THE_USER"]')

    with Child(python(script)) as child:
        assert child.ask("open", "model.xml")["op"] == "42"


def test_a_python_path_of_the_user_is_kept(tmp_path, monkeypatch):
    (tmp_path / "module_of_the_user.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with Child(python("import module_of_the_user\n" + ECHO)) as child:
        assert child.ask("open", "model.xml")["op"] == "open"


def test_what_native_code_prints_is_never_taken_for_a_reply():
    with Child(python(NOISY)) as child:
        assert child.ask("environment", "model.xml") == {"fake": False}


def test_what_native_code_printed_does_not_answer_the_next_job():
    with Child(python(NOISY)) as child:
        child.ask("environment", "model.xml")

        assert child.ask("environment", "model.xml") == {"fake": False}


def test_what_native_code_printed_is_among_its_last_words():
    script = NO_CORE + NOISY.replace('return {"fake": False}', "ctypes.string_at(0)").replace("FAKE.en", "'oh'.en")

    assert str(crash(script, op="environment")).endswith("\noh")


def test_an_error_of_the_worker_is_raised_here_as_the_same_class():
    script = ECHO.replace("Reply(result=facts)", "Reply(error='a.npz: cut off', hint='h', error_class='InputError')")

    with Child(python(script)) as child, pytest.raises(InputError) as caught:
        child.ask("infer", "model.xml")

    assert (str(caught.value), caught.value.hint) == ("a.npz: cut off", "h")


def test_the_real_worker_is_started_by_default():
    with Child() as child, pytest.raises(StageError) as caught:
        child.ask("sing", "model.xml")

    assert str(caught.value) == "worker: no operation is called 'sing'"


def test_progress_of_a_job_is_heard_before_its_answer():
    step = """sys.stdout.write(
        protocol.progress_line(progress.ProgressEvent(stage="build", text="tactics", done=1, total=2))
    )
    job ="""
    imports = "import protocol\nfrom deploy_kit.base import progress"
    script = ECHO.replace("import protocol", imports).replace("job =", step)
    heard = []

    with Child(python(script)) as child:
        answer = child.ask("build", "model.xml", on_progress=heard.append)

    assert (heard, answer["op"]) == ([ProgressEvent(stage="build", text="tactics", done=1, total=2)], "build")
