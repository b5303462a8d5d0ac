"""Job and Reply as lines of JSON: the only thing that crosses between the host and a worker.

Tensors do not cross here; a job names npy files that both sides can open.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from deploy_kit import codec, errors
from deploy_kit.errors import DeployKitError, StageError


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


def read_reply(line: str) -> Reply:
    """Read a reply back."""
    return Reply(**json.loads(line))


def failure(error: DeployKitError) -> Reply:
    """Turn an error into the reply that carries it."""
    return Reply(error=str(error), hint=error.hint, error_class=type(error).__name__)
