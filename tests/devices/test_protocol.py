"""Tests of wire.py: a job and a reply cross as one line each, and an error arrives as the class it left as."""

import inspect
import json

import pytest

from deploy_kit.base import errors
from deploy_kit.base.errors import BuildError, DeployKitError, InputError, StageError
from deploy_kit.base.progress import ProgressEvent, no_progress
from deploy_kit.devices import protocol
from deploy_kit.devices.protocol import Job, Reply

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]


class OvenError(BuildError):
    """An error of a third party's engine."""


def crossed(reply):
    return protocol.await_reply(iter([protocol.reply_line(reply)]).__next__, no_progress)


def test_a_job_comes_out_as_it_went_in():
    job = Job(
        op="open", arguments={"path": "a b/ä.xml", "options": {"threads": 2, "fast": None}, "limits": [0.1, True]}
    )

    assert protocol.read_job(protocol.job_line(job)) == job


def test_a_reply_comes_out_as_it_went_in():
    reply = Reply(result={"samples_ms": [0.1, 1 / 3, 1e-9], "why": ""})

    assert crossed(reply) == reply


def test_a_job_is_one_line_whatever_is_in_it():
    line = protocol.job_line(Job(op="open", arguments={"path": "a\nb\r\u2028c"}))

    assert line.splitlines() == [line.rstrip("\n")]


def test_a_reply_is_one_line_whatever_is_in_it():
    line = protocol.reply_line(Reply(error="first\nsecond\u2028third"))

    assert line.splitlines() == [line.rstrip("\n")]


def test_a_reply_is_json_without_bare_infinities():
    line = protocol.reply_line(Reply(result={"value": float("inf")}))

    assert json.loads(line, parse_constant=pytest.fail)["result"] == {"value": "inf"}


def test_unwrap_gives_the_result():
    assert Reply(result={"n": 3}).unwrap() == {"n": 3}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_arrives_as_its_own_class(cls):
    reply = crossed(protocol.error_reply(cls("gone")))

    with pytest.raises(DeployKitError) as caught:
        reply.unwrap()

    assert type(caught.value) is cls


def test_an_error_arrives_with_its_message():
    reply = crossed(protocol.error_reply(InputError("ä.npz: no such file\nat all", hint="check the path")))

    with pytest.raises(InputError) as caught:
        reply.unwrap()

    assert str(caught.value) == "ä.npz: no such file\nat all"


def test_an_error_arrives_with_its_hint():
    reply = crossed(protocol.error_reply(InputError("ä.npz: no such file", hint="check the path")))

    with pytest.raises(InputError) as caught:
        reply.unwrap()

    assert caught.value.hint == "check the path"


def test_an_error_class_that_the_host_does_not_know_arrives_as_a_failed_stage():
    reply = crossed(protocol.error_reply(OvenError("the oven is cold", hint="light it")))

    with pytest.raises(StageError) as caught:
        reply.unwrap()

    assert (str(caught.value), caught.value.hint, caught.value.exit_code) == ("the oven is cold", "light it", 5)


def test_an_error_with_an_empty_message_is_still_an_error():
    reply = crossed(protocol.error_reply(BuildError("")))

    with pytest.raises(BuildError):
        reply.unwrap()


def test_progress_before_the_reply_is_told_in_order():
    events = [ProgressEvent(stage="build", text="tactics", done=n, total=3) for n in (1, 2, 3)]
    lines = iter([*map(protocol.progress_line, events), protocol.reply_line(Reply(result={"n": 1}))])
    heard = []

    reply = protocol.await_reply(lines.__next__, heard.append)

    assert (heard, reply) == (events, Reply(result={"n": 1}))


def test_a_worker_that_ends_before_its_reply_gives_none():
    lines = iter([protocol.progress_line(ProgressEvent(stage="build", text="tactics")), ""])

    assert protocol.await_reply(lines.__next__, no_progress) is None


def test_half_a_line_of_progress_gives_none():
    line = protocol.progress_line(ProgressEvent(stage="build", text="tactics"))[:-5]

    assert protocol.await_reply(iter([line]).__next__, no_progress) is None


def test_a_line_of_progress_is_one_line_whatever_is_in_it():
    line = protocol.progress_line(ProgressEvent(stage="build", text="a\nb\u2028c"))

    assert line.splitlines() == [line.rstrip("\n")]
