"""The local backend: what the modules of this package do, behind the interface."""

import gc
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from typing_extensions import override

from backends.data import (
    EXAMPLES,
    GenerationQuery,
    GenerationResult,
    PreferenceExample,
    Query,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
    SearchResult,
    TunedModel,
)
from backends.errors import DataError
from backends.interface import (
    Backend,
    Capabilities,
    Estimate,
    FineTuneJob,
    Place,
    Progress,
    stoppable,
)
from backends.jsonl import read_jsonl
from backends.local.adapters import (
    ADAPTER_WEIGHTS,
    adapter_content,
)
from backends.local.costs import Costs
from backends.local.device import choose_device, choose_dtype, describe_device, is_here
from backends.local.encoding import Encoder
from backends.local.fine_tuning import RECORD, FineTuning, Prepared, Record, training_settings
from backends.local.generation import Generator
from backends.local.models import (
    content_of,
    context_length,
    load_tokenizer,
    locate,
)
from backends.local.one_pass import OnePass
from backends.local.open_model import OpenModel
from backends.local.placing import check_placing, n_processes, placed
from backends.local.query_estimates import estimate_queries
from backends.local.ranks import Ranks
from backends.local.scoring import in_parts, score
from backends.local.search import Searcher
from backends.local.sequences import Learned, Pair, n_tokens
from backends.local.settings import LocalSettings
from backends.local.sharding import in_step
from backends.local.training_process import TrainingOrder, train_in_own_process
from backends.local.workers import environment, threads, workers

_TRAINING = 1
"""Counted up when a change here gives other weights for the same job."""
_ASKING = 1
"""The same of answers to the same query."""


class LocalBackend(Backend):
    """Fine-tunes LoRA adapters and scores exactly, on this machine."""

    capabilities = Capabilities(
        prompt_loss=True,
        exact_scores=True,
        starts_from=True,
        search=True,
        costs_money=False,
        prefill=True,
        elsewhere=True,
    )

    def __init__(
        self, settings: LocalSettings, *, elsewhere: bool = False, is_rank: bool = False
    ) -> None:
        """With `elsewhere` it plans for a device that is named, whether or not it is here.

        `is_rank` says that this process is one of those that another backend gives its work to.
        """
        self._settings = settings.of_day(date.today())
        self._device = choose_device(settings.device, elsewhere=elsewhere)
        if not elsewhere:
            check_placing(self._settings, self._device)
        self._n_ranks = 1 if is_rank else n_processes(self._settings, self._device)
        self._ranks: Ranks | None = None
        self._open: OpenModel | None = None
        self._one_pass = OnePass()
        self._known_examples: dict[tuple[str, str, str], str] = {}

    def __reduce__(self) -> tuple[type[Self], tuple[LocalSettings]]:
        """Another process opens it anew."""
        return type(self), (self._settings,)

    @property
    @override
    def base_model(self) -> str:
        return self._settings.model

    @override
    def describe(self) -> dict[str, str]:
        scoring, generation = (
            choose_dtype(name, self._device)
            for name in (self._settings.scoring.dtype, self._settings.generation_dtype)
        )
        dtypes = {"training": self._training_dtype, "scoring": scoring}
        if generation != scoring:
            dtypes["generation"] = generation
        return {
            "model": self._settings.model,
            "device": describe_device(self._device),
            **{key: str(value) for key, value in placed(self._settings, self._device).items()},
            **{f"{of} dtype": str(dtype).removeprefix("torch.") for of, dtype in dtypes.items()},
            **self._dated,
        }

    @property
    def _dated(self) -> dict[str, str]:
        """The day's date, where the model sees it."""
        return {"date": str(self._settings.date)} if self._encoder.is_dated else {}

    @override
    def render(self, query: Query) -> str:
        return self._encoder.render(query)

    @override
    def tokenize(self, text: str) -> tuple[int, ...]:
        return self._encoder.answer_tokens(text)

    @override
    def estimate(
        self, work: FineTuneJob | Sequence[Query], *, model: str | None = None
    ) -> Estimate:
        if not isinstance(work, FineTuneJob):
            estimate = estimate_queries(work, self._encoder, self._costs)
        else:
            examples = self._examples(work, work.training_file)
            if work.validation_file is not None:
                self._examples(work, work.validation_file)
            cost = self._costs.of_training(examples, work.seed)
            tokens = self._settings.training.epochs * n_tokens(examples)
            estimate = Estimate(tokens, seconds=cost.seconds, memory_bytes=cost.memory_bytes)
        return estimate if is_here(self._device) else replace(estimate, seconds=None)

    @override
    def identity(self, job: FineTuneJob) -> str:
        parts = {
            "version": _TRAINING,
            "base": self._base_content,
            "examples": [
                path and self._content_of_examples(job, path)
                for path in (job.training_file, job.validation_file)
            ],
            "lora": self._settings.lora.model_dump(mode="json"),
            "training": training_settings(self._settings, job)
            | {"dtype": str(self._training_dtype)},
            "prefix_sharing": self._settings.prefix_sharing,
            "device": self._device.type,
            "seed": job.seed,
            "starts_from": job.starts_from and adapter_content(Path(job.starts_from)),
            **self._quantized,
        }
        return _digest(parts)

    @override
    def asked_as(self, model: str) -> str | None:
        is_base = model == self.base_model
        parts = {
            "version": _ASKING,
            "base": self._base_content,
            "tokenizer": self._tokenizer_content,
            "adapter": None if is_base else adapter_content(Path(model)),
            "dtypes": [
                str(choose_dtype(dtype, self._device))
                for dtype in (self._settings.scoring.dtype, self._settings.generation_dtype)
            ],
            "dated": self._dated,
            "prefix_sharing": self._settings.prefix_sharing,
            "device": self._device.type,
            **self._quantized,
        }
        return _digest(parts)

    @property
    def _quantized(self) -> dict[str, str]:
        """What changes the base model's numbers; sharding does not, beyond rounding."""
        chosen = self._settings.quantize
        return {} if chosen == "none" else {"quantize": chosen}

    @override
    def has(self, model: str) -> bool:
        return (Path(model) / ADAPTER_WEIGHTS).exists()

    def _finished(self, job: FineTuneJob, identity: str) -> TunedModel | None:
        """What a call with such a job made before."""
        record = job.output / RECORD
        if not record.exists():
            return None
        try:
            read = Record.model_validate_json(record.read_bytes())
        except ValidationError:
            return None
        if read.identity != identity:
            return None
        return read.tuned_model.model_copy(update={"model": str(job.output)})

    @override
    def side_by_side(self, estimates: Sequence[Estimate]) -> int:
        if self._settings.shard != "none":
            return 1  # it has all devices
        settings = self._settings
        return workers(settings.workers, self._device, estimates, one_pass=settings.one_pass)

    @override
    def fine_tune(
        self, job: FineTuneJob, report: Callable[[Progress], None], place: Place | None = None
    ) -> TunedModel:
        # What starts from an adapter may have one of another shape.
        in_one_pass = self._settings.one_pass and job.starts_from is None
        if place is not None and not in_one_pass:
            return self._fine_tune_beside(job, report, place)
        checkpoint = job.output.with_name(f".{job.output.name}.checkpoint")
        identity = self.identity(job)
        tuned = self._finished(job, identity)
        if tuned is None and self._settings.shard != "none" and self._n_ranks > 1:
            tuned = self._begun_ranks().fine_tune(job, report)
        elif tuned is None:
            self._open = None
            tuning, prepare = self._fine_tuning, partial(self._prepared, job, identity, checkpoint)
            if place is None:
                tuned = tuning.run(job, prepare(), report)
            else:
                tuned = self._one_pass.run(tuning, job, prepare, stoppable(report, place.stop))
        checkpoint.unlink(missing_ok=True)
        return tuned

    @override
    def close(self) -> None:
        self._open = None
        if self._ranks is not None:
            self._ranks.close()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @override
    def score(self, model: str, queries: Sequence[ScoringQuery]) -> Iterator[ScoringResult]:
        if self._n_ranks > 1:
            yield from self._begun_ranks().ask("score", model, queries)
            return
        opened = self._opened(model)
        engine = opened.engine
        with in_step(opened.scoring_model):
            for tokenized in in_parts(self._encoder.query(query) for query in queries):
                for batch in score(engine, tokenized, self._settings.scoring.batch_tokens):
                    yield from batch

    @override
    def generate(
        self, model: str, queries: Sequence[GenerationQuery]
    ) -> Iterator[GenerationResult]:
        if self._n_ranks > 1:
            yield from self._begun_ranks().ask("generate", model, queries)
            return
        decoder = self._opened(model).decoder
        with in_step(decoder.model):
            yield from Generator(decoder, self._encoder).generate(queries)

    @override
    def search(self, model: str, queries: Sequence[SearchQuery]) -> Iterator[SearchResult]:
        if self._n_ranks > 1:
            yield from self._begun_ranks().ask("search", model, queries)
            return
        decoder = self._opened(model).decoder
        with in_step(decoder.model):
            for batch in Searcher(decoder, self._encoder).search(queries):
                yield from batch

    @cached_property
    def _location(self) -> str:
        return locate(self._settings.model)

    @cached_property
    def _base_content(self) -> str:
        return content_of(self._location)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._location)

    @cached_property
    def _tokenizer_content(self) -> str:
        tokenizer = self._tokenizer
        fast = getattr(tokenizer, "backend_tokenizer", None)
        return _digest(
            [repr(tokenizer) if fast is None else fast.to_str(), tokenizer.chat_template]
        )

    @cached_property
    def _encoder(self) -> Encoder:
        length = context_length(self._location)
        return Encoder(self._tokenizer, length, self._settings.day)

    @cached_property
    def _costs(self) -> Costs:
        return Costs(
            self._settings,
            self._location,
            self._device if is_here(self._device) else torch.device("cpu"),
            training=self._training_dtype,
            scoring=choose_dtype(self._settings.scoring.dtype, self._device),
        )

    def _examples(self, job: FineTuneJob, path: Path) -> list[Learned]:
        examples: list[Learned] = []
        for number, example in enumerate(read_jsonl(path, EXAMPLES[job.method]), start=1):
            try:
                if isinstance(example, PreferenceExample):
                    examples.append(self._encoder.pair(example))
                else:
                    examples.append(self._encoder.example(example, job.loss_on))
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
        return examples

    def _content_of_examples(self, job: FineTuneJob, path: Path) -> str:
        """A digest of the file as tokens, which holds the chat template as it is rendered."""
        key = (hashlib.sha256(path.read_bytes()).hexdigest(), job.method, job.loss_on)
        if key not in self._known_examples:
            self._known_examples[key] = _digest(
                [_content(example) for example in self._examples(job, path)]
            )
        return self._known_examples[key]

    def _begun_ranks(self) -> Ranks:
        """The processes that do this one's work; they stay until `close`."""
        if self._ranks is None or self._ranks.is_closed:
            self._ranks = Ranks(self._settings, self._device, self._n_ranks)
        return self._ranks

    def _opened(self, model: str) -> OpenModel:
        """The model to be asked; the base stays loaded, with the adapter used last."""
        if self._open is None:
            self._open = OpenModel(self._settings, self._location, self._tokenizer, max_adapters=1)
        self._open.activate(None if model == self.base_model else Path(model))
        return self._open

    def _fine_tune_beside(
        self, job: FineTuneJob, report: Callable[[Progress], None], place: Place
    ) -> TunedModel:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        # A process whose parent was killed may be about to end when the next one begins.
        lock = job.output.with_name(f".{job.output.name}.lock")
        order = TrainingOrder(
            settings=self._settings, job=job, lock=lock, threads=threads(self._device, place)
        )
        is_sharded = self._settings.shard != "none"  # over all devices
        variables = dict(os.environ) if is_sharded else environment(self._device, place)
        tuned = train_in_own_process(order, report, place.stop, variables)
        lock.unlink(missing_ok=True)
        return tuned

    def _prepared(self, job: FineTuneJob, identity: str, checkpoint: Path) -> Prepared:
        examples = self._examples(job, job.training_file)
        validation = self._examples(job, job.validation_file) if job.validation_file else []
        return Prepared(examples, validation, identity, checkpoint)

    @property
    def _fine_tuning(self) -> FineTuning:
        return FineTuning(
            self._settings, self._location, self._device, self._training_dtype, self._dated
        )

    @property
    def _training_dtype(self) -> torch.dtype:
        return choose_dtype(self._settings.training.dtype, self._device)


def _content(example: Learned) -> list[Any]:
    """What tells an example from any other."""
    found = [[sequence.tokens, sequence.targets] for sequence in example.sequences]
    return found if isinstance(example, Pair) else found[0]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
