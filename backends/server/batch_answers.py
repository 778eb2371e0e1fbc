"""The answers of a batch: each is on disk before it counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openai.types import BatchRequestCounts, BatchUsage
from openai.types.batch_usage import InputTokensDetails, OutputTokensDetails

from backends.jsonl import AppendOnlyFile, read_jsonl
from backends.server.batch_lines import ANSWER, BatchAnswer, BatchRequest, Failure
from backends.server.identifiers import new_id


class BatchAnswers(AppendOnlyFile):
    """The answers so far, those that an earlier server wrote among them."""

    def __init__(self, path: Path, requests: Sequence[BatchRequest]) -> None:
        """Raises DataError or OSError where what is there can't be read."""
        super().__init__(path)
        given = read_jsonl(path, ANSWER, unfinished_ok=True)
        answered = {answer.custom_id for answer in given}
        self.missing = [request for request in requests if request.custom_id not in answered]
        self.counts = BatchRequestCounts(completed=0, failed=0, total=len(requests))
        for answer in given:
            self._count(answer)

    def add(self, answer: BatchAnswer) -> None:
        """Writes one more. Raises OSError."""
        self.append([answer])
        self._count(answer)

    def _count(self, answer: BatchAnswer) -> None:
        if answer.succeeded:
            self.counts.completed += 1
        else:
            self.counts.failed += 1


def in_order(path: Path, requests: Sequence[BatchRequest], status: str) -> list[BatchAnswer]:
    """What to give out for each request of a batch that ends with this status.

    Raises:
        DataError: the answers can't be read.
    """
    answers = read_jsonl(path, ANSWER, unfinished_ok=True) if path.exists() else []
    by_id = {answer.custom_id: answer for answer in answers}
    return [by_id.get(r.custom_id) or _unanswered(r.custom_id, status) for r in requests]


def usage(succeeded: Sequence[BatchAnswer]) -> BatchUsage:
    """The tokens of all answers together."""
    counted: list[dict[str, Any]] = [
        line.response.body["usage"] for line in succeeded if line.response
    ]
    prompt = sum(usage["prompt_tokens"] for usage in counted)
    completion = sum(usage["completion_tokens"] for usage in counted)
    return BatchUsage(
        input_tokens=prompt,
        input_tokens_details=InputTokensDetails(cached_tokens=0),
        output_tokens=completion,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=prompt + completion,
    )


def _unanswered(custom_id: str, status: str) -> BatchAnswer:
    message = f"The batch was {status} before this request was answered."
    failure = Failure(code=f"batch_{status}", message=message)
    return BatchAnswer(id=new_id("batch_req_"), custom_id=custom_id, error=failure)
