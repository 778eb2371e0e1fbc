"""The local backend: what the modules of this package do, behind the interface."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from typing_extensions import override

from backends.data import (
    TRAINING_EXAMPLE,
    GenerationQuery,
    GenerationResult,
    Query,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
    SearchResult,
    TunedModel,
)
from backends.errors import DataError
from backends.interface import Backend, Capabilities, Estimate, FineTuneJob, LossOn, Place, Progress
from backends.jsonl import read_jsonl
from backends.local.adapters import (
    ADAPTER_WEIGHTS,
    adapter_content,
    base_of,
    load_adapter,
    new_adapter,
    save_adapter,
)
from backends.local.checkpoints import TrainingState
from backends.local.costs import Costs
from backends.local.device import choose_device, choose_dtype, describe_device
from backends.local.encoding import Encoder
from backends.local.engine import choose_engine
from backends.local.generation import Generator
from backends.local.models import (
    content_of,
    context_length,
    load_model,
    load_tokenizer,
    locate,
)
from backends.local.open_model import OpenModel
from backends.local.query_estimates import estimate_queries
from backends.local.scoring import score
from backends.local.search import Searcher
from backends.local.sequences import TokenSequence
from backends.local.settings import LocalSettings
from backends.local.training import Trainer
from backends.local.training_process import TrainingOrder, train_in_own_process
from backends.local.workers import environment, threads, workers
from backends.schema import Strict

_RECORD = "tuned_model.json"
_TRAINING = 1
"""Counted up when a change here gives other weights for the same job."""


class _Record(Strict):
    """What lies beside a finished adapter: which one it is, and what was done."""

    identity: str
    tuned_model: TunedModel


class LocalBackend(Backend):
    """Fine-tunes LoRA adapters and scores exactly, on this machine."""

    capabilities = Capabilities(
        prompt_loss=True,
        exact_scores=True,
        starts_from=True,
        search=True,
        costs_money=False,
        prefill=True,
    )

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        self._device = choose_device(settings.device)
        self._open: OpenModel | None = None
        self._known_examples: dict[tuple[str, LossOn], str] = {}

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
            **{f"{of} dtype": str(dtype).removeprefix("torch.") for of, dtype in dtypes.items()},
        }

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
        if isinstance(work, FineTuneJob):
            examples = self._examples(work.training_file, work.loss_on)
            if work.validation_file is not None:
                self._examples(work.validation_file, work.loss_on)
            epochs = self._settings.training.epochs
            cost = self._costs.of_training(examples, work.seed)
            tokens = epochs * sum(len(e.tokens) for e in examples)
            return Estimate(tokens, seconds=cost.seconds, memory_bytes=cost.memory_bytes)
        return estimate_queries(work, self._encoder, self._costs)

    @override
    def identity(self, job: FineTuneJob) -> str:
        training = self._settings.training.model_dump(mode="json", exclude={"checkpoint_seconds"})
        parts = {
            "version": _TRAINING,
            "base": self._base_content,
            "examples": [
                path and self._content_of_examples(path, job.loss_on)
                for path in (job.training_file, job.validation_file)
            ],
            "lora": self._settings.lora.model_dump(mode="json"),
            "training": training | {"dtype": str(self._training_dtype)},
            "prefix_sharing": self._settings.prefix_sharing,
            "device": self._device.type,
            "seed": job.seed,
            "starts_from": job.starts_from and adapter_content(Path(job.starts_from)),
        }
        return _digest(parts)

    @override
    def has(self, model: str) -> bool:
        return (Path(model) / ADAPTER_WEIGHTS).exists()

    def _finished(self, job: FineTuneJob, identity: str) -> TunedModel | None:
        """What a call with such a job made before."""
        record = job.output / _RECORD
        if not record.exists():
            return None
        try:
            read = _Record.model_validate_json(record.read_bytes())
        except ValidationError:
            return None
        if read.identity != identity:
            return None
        return read.tuned_model.model_copy(update={"model": str(job.output)})

    @override
    def side_by_side(self, estimates: Sequence[Estimate]) -> int:
        return workers(self._settings.workers, self._device, estimates)

    @override
    def fine_tune(
        self, job: FineTuneJob, report: Callable[[Progress], None], place: Place | None = None
    ) -> TunedModel:
        if place is not None:
            return self._fine_tune_beside(job, report, place)
        checkpoint = job.output.with_name(f".{job.output.name}.checkpoint")
        identity = self.identity(job)
        tuned = self._finished(job, identity)
        if tuned is None:
            tuned = self._train(job, identity, checkpoint, report)
        checkpoint.unlink(missing_ok=True)
        return tuned

    @override
    def score(self, model: str, queries: Sequence[ScoringQuery]) -> Iterator[ScoringResult]:
        tokenized = [self._encoder.query(query) for query in queries]
        engine = self._opened(model).engine
        for batch in score(engine, tokenized, self._settings.scoring.batch_tokens):
            yield from batch

    @override
    def generate(
        self, model: str, queries: Sequence[GenerationQuery]
    ) -> Iterator[GenerationResult]:
        generator = Generator(self._opened(model).decoder, self._encoder)
        for batch in generator.generate(queries):
            yield from batch

    @override
    def search(self, model: str, queries: Sequence[SearchQuery]) -> Iterator[SearchResult]:
        searcher = Searcher(self._opened(model).decoder, self._encoder)
        for batch in searcher.search(queries):
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
    def _encoder(self) -> Encoder:
        return Encoder(self._tokenizer, context_length(self._location))

    @cached_property
    def _costs(self) -> Costs:
        return Costs(
            self._settings,
            self._location,
            self._device,
            training=self._training_dtype,
            scoring=choose_dtype(self._settings.scoring.dtype, self._device),
        )

    def _examples(self, path: Path, loss_on: LossOn) -> list[TokenSequence]:
        examples = []
        for number, example in enumerate(read_jsonl(path, TRAINING_EXAMPLE), start=1):
            try:
                examples.append(self._encoder.example(example, loss_on))
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
        return examples

    def _content_of_examples(self, path: Path, loss_on: LossOn) -> str:
        """A digest of the file as tokens, which holds the chat template as it is rendered."""
        key = (hashlib.sha256(path.read_bytes()).hexdigest(), loss_on)
        if key not in self._known_examples:
            examples = [[e.tokens, e.targets] for e in self._examples(path, loss_on)]
            self._known_examples[key] = _digest(examples)
        return self._known_examples[key]

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
        tuned = train_in_own_process(order, report, place.stop, environment(self._device, place))
        lock.unlink(missing_ok=True)
        return tuned

    def _train(
        self,
        job: FineTuneJob,
        identity: str,
        checkpoint: Path,
        report: Callable[[Progress], None],
    ) -> TunedModel:
        self._open = None
        dtype = self._training_dtype
        examples = self._examples(job.training_file, job.loss_on)
        validation = self._examples(job.validation_file, job.loss_on) if job.validation_file else []
        torch.manual_seed(job.seed)
        model = self._trainable(job, dtype).train()
        engine = choose_engine(base_of(model), self._settings.prefix_sharing)
        trainer = Trainer(
            model, engine, examples, validation, self._settings.training, dtype=dtype, seed=job.seed
        )
        state = trainer.run(checkpoint, identity, report)
        used = {
            "prefix_sharing": engine.shares_prefixes,
            "micro_batches": trainer.micro_batches,
        }
        tuned = self._tuned_model(job, examples, state, used)
        record = _Record(identity=identity, tuned_model=tuned)
        save_adapter(model, job.output, {_RECORD: record.model_dump_json()})
        return tuned

    def _trainable(self, job: FineTuneJob, dtype: torch.dtype) -> PeftModel:
        base = load_model(self._location, self._device, dtype)
        if job.starts_from is not None:
            return load_adapter(base, Path(job.starts_from), trainable=True)
        return new_adapter(base, self._settings.lora)

    @property
    def _training_dtype(self) -> torch.dtype:
        return choose_dtype(self._settings.training.dtype, self._device)

    def _tuned_model(
        self,
        job: FineTuneJob,
        examples: list[TokenSequence],
        state: TrainingState,
        used: dict[str, Any],
    ) -> TunedModel:
        epochs = self._settings.training.epochs
        return TunedModel(
            model=str(job.output),
            base_model=self.base_model,
            hyperparameters={
                "lora": self._settings.lora.model_dump(mode="json"),
                **self._settings.training.model_dump(mode="json", exclude={"checkpoint_seconds"}),
                "dtype": str(self._training_dtype).removeprefix("torch."),
                "device": describe_device(self._device),
                "loss_on": job.loss_on,
                "seed": job.seed,
                "steps": state.step,
                **used,
            },
            n_examples=len(examples),
            trained_tokens=epochs * sum(len(example.tokens) for example in examples),
            seconds=state.seconds,
            cost_usd=None,
            training_curve=tuple(state.curve),
        )


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
