"""Job and Reply as lines of JSON, and lines of progress between them: all that crosses between the host and a worker.

Tensors do not cross here; a job names npy files that both sides can open.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deploy_kit.base import errors
from deploy_kit.base.errors import DeployKitError, StageError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent
from deploy_kit.records import codec

_PROGRESS = "progress"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request to a worker: an operation's name and its arguments."""

    op: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A worker's answer: a result, or an error with the class that the host raises again."""

    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    hint: str = ""
    error_class: str = ""

    def unwrap(self) -> dict[str, Any]:
        """Give the result, or raise the worker's error."""
        if not self.error_class:
            return self.result
        cls = getattr(errors, self.error_class, StageError)
        raise cls(self.error, hint=self.hint)


def job_line(job: Job) -> str:
    """Write a job as one line."""
    return json.dumps({"op": job.op, "arguments": job.arguments}) + "\n"


def read_job(line: str) -> Job:
    """Read a job back."""
    data = json.loads(line)
    return Job(op=data["op"], arguments=data["arguments"])


def reply_line(reply: Reply) -> str:
    """Write a reply as one line."""
    return json.dumps(codec.to_json(vars(reply))) + "\n"


def progress_line(event: ProgressEvent) -> str:
    """Write one step of a job under way as one line."""
    return json.dumps({_PROGRESS: codec.to_json(event)}) + "\n"


def await_reply(read_line: Callable[[], str], on_progress: ProgressCallback) -> Reply | None:
    """Read lines until the reply is there.

    Args:
        read_line: Gives the next line with its end; an empty text once the worker is gone.
        on_progress: Called with each line of progress on the way.

    Returns:
        The reply; None where the worker was gone before it had written all of it.
    """
    while (line := read_line()).endswith("\n"):
        data = json.loads(line)
        if _PROGRESS not in data:
            return Reply(**data)
        on_progress(ProgressEvent(**data[_PROGRESS]))
    return None


def error_reply(error: DeployKitError) -> Reply:
    """Turn an error into the reply that carries it."""
    return Reply(error=str(error), hint=error.hint, error_class=type(error).__name__)
