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
from backends.interface import Backend, Capabilities, Estimate, FineTuneJob, LossOn, Progress
from backends.jsonl import read_jsonl
from backends.local.adapters import (
    ADAPTER_WEIGHTS,
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
from backends.schema import Strict

_RECORD = "tuned_model.json"


class _Record(Strict):
    """What lies beside a finished adapter: of which job it is, and what was done."""

    fingerprint: str
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

    @property
    @override
    def base_model(self) -> str:
        return self._settings.model

    @override
    def describe(self) -> dict[str, str]:
        scoring = choose_dtype(self._settings.scoring.dtype, self._device)
        return {
            "model": self._settings.model,
            "device": describe_device(self._device),
            "training dtype": str(self._training_dtype).removeprefix("torch."),
            "scoring dtype": str(scoring).removeprefix("torch."),
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

    def _finished(self, job: FineTuneJob) -> TunedModel | None:
        """What a call with the very same job made before."""
        record = job.output / _RECORD
        if not record.exists():
            return None
        try:
            read = _Record.model_validate_json(record.read_bytes())
        except ValidationError:
            return None
        if read.fingerprint != self._fingerprint(job):
            return None
        return read.tuned_model.model_copy(update={"model": str(job.output)})

    @override
    def fine_tune(self, job: FineTuneJob, report: Callable[[Progress], None]) -> TunedModel:
        checkpoint = job.output.with_name(f".{job.output.name}.checkpoint")
        tuned = self._finished(job)
        if tuned is None:
            tuned = self._train(job, checkpoint, report)
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

    def _opened(self, model: str) -> OpenModel:
        """The model to be asked; the base stays loaded, with the adapter used last."""
        if self._open is None:
            self._open = OpenModel(self._settings, self._location, self._tokenizer, max_adapters=1)
        self._open.activate(None if model == self.base_model else Path(model))
        return self._open

    def _train(
        self, job: FineTuneJob, checkpoint: Path, report: Callable[[Progress], None]
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
        fingerprint = self._fingerprint(job)
        state = trainer.run(checkpoint, fingerprint, report)
        used = {
            "prefix_sharing": engine.shares_prefixes,
            "micro_batches": trainer.micro_batches,
        }
        tuned = self._tuned_model(job, examples, state, used)
        record = _Record(fingerprint=fingerprint, tuned_model=tuned)
        save_adapter(model, job.output, {_RECORD: record.model_dump_json()})
        return tuned

    def _trainable(self, job: FineTuneJob, dtype: torch.dtype) -> PeftModel:
        base = load_model(self._location, self._device, dtype)
        if job.starts_from is not None:
            return load_adapter(base, Path(job.starts_from), trainable=True)
        return new_adapter(base, self._settings.lora)

    def _fingerprint(self, job: FineTuneJob) -> str:
        """What a checkpoint or a finished adapter must agree with to be of this job."""
        starts_from = Path(job.starts_from, ADAPTER_WEIGHTS) if job.starts_from else None
        files = [
            hashlib.sha256(path.read_bytes()).hexdigest() if path and path.exists() else None
            for path in (job.training_file, job.validation_file, starts_from)
        ]
        settings = self._settings.model_dump(mode="json", exclude={"scoring"})
        computed = [self._device.type, str(self._training_dtype)]
        parts = [job.run_id, job.name, job.loss_on, job.seed, files, settings, computed]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

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
