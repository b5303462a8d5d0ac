"""Protocol between host and worker: jobs and replies as lines of JSON, with lines of progress between them.

Tensors are not part of it; a job names npy files that the worker can open.
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
    """One request to a worker.

    Attributes:
        op: Name of the worker's operation.
        arguments: Arguments of the operation, as JSON can hold them.
    """

    op: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A worker's answer to a job: a result or an error.

    Attributes:
        result: Result of the operation; empty after an error.
        error: Message of the error; empty if there was none.
        hint: Hint of the error.
        error_class: Name of the error's class in `base.errors`, by which the host raises it again; empty if there was
            no error.
    """

    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    hint: str = ""
    error_class: str = ""

    def unwrap(self) -> dict[str, Any]:
        """Return the result, or raise the worker's error."""
        if not self.error_class:
            return self.result
        # By name: exit codes and handlers on the host depend on the class, and a name is all that JSON can carry.
        cls = getattr(errors, self.error_class, StageError)
        raise cls(self.error, hint=self.hint)


def job_line(job: Job) -> str:
    """Encode a job as one line."""
    return json.dumps({"op": job.op, "arguments": job.arguments}) + "\n"


def read_job(line: str) -> Job:
    """Decode a job."""
    data = json.loads(line)
    return Job(op=data["op"], arguments=data["arguments"])


def reply_line(reply: Reply) -> str:
    """Encode a reply as one line."""
    return json.dumps(codec.to_json(vars(reply))) + "\n"


def progress_line(event: ProgressEvent) -> str:
    """Encode a progress event of a running job as one line."""
    return json.dumps({_PROGRESS: codec.to_json(event)}) + "\n"


def await_reply(read_line: Callable[[], str], on_progress: ProgressCallback) -> Reply | None:
    """Read lines until the reply comes.

    Args:
        read_line: Waits for the next line and returns it with its line feed; an empty text once the worker has ended.
        on_progress: Called with each progress event before the reply.

    Returns:
        The reply; None where the worker ended before it had written all of it.
    """
    while (line := read_line()).endswith("\n"):  # a line without a line feed was cut off by the end of the worker
        data = json.loads(line)
        if _PROGRESS not in data:
            return Reply(**data)
        on_progress(ProgressEvent(**data[_PROGRESS]))
    return None


def error_reply(error: DeployKitError) -> Reply:
    """Create the reply that carries an error to the host."""
    return Reply(error=str(error), hint=error.hint, error_class=type(error).__name__)
