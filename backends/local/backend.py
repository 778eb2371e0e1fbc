"""The local backend: what the modules of this package do, behind the interface."""

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from peft import PeftModel
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
from backends.interface import Backend, Capabilities, Estimate, FineTuneJob, Place, Progress
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
from backends.local.device import choose_device, choose_dtype, describe_device, is_here
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
from backends.local.objectives import (
    CrossEntropy,
    DirectPreference,
    Objective,
    rounding,
    with_reference,
)
from backends.local.open_model import OpenModel
from backends.local.query_estimates import estimate_queries
from backends.local.scoring import in_parts, score
from backends.local.search import Searcher
from backends.local.sequences import Learned, Pair, n_tokens
from backends.local.settings import LocalSettings
from backends.local.training import Trainer
from backends.local.training_process import TrainingOrder, train_in_own_process
from backends.local.workers import environment, threads, workers
from backends.schema import Strict

_RECORD = "tuned_model.json"
_TRAINING = 1
"""Counted up when a change here gives other weights for the same job."""
_ASKING = 1
"""The same of answers to the same query."""


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
        elsewhere=True,
    )

    def __init__(self, settings: LocalSettings, *, elsewhere: bool = False) -> None:
        """With `elsewhere` it plans for a device that is named, whether or not it is here."""
        self._settings = settings.of_day(date.today())
        self._device = choose_device(settings.device, elsewhere=elsewhere)
        self._open: OpenModel | None = None
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
            "training": self._training_settings(job) | {"dtype": str(self._training_dtype)},
            "prefix_sharing": self._settings.prefix_sharing,
            "device": self._device.type,
            "seed": job.seed,
            "starts_from": job.starts_from and adapter_content(Path(job.starts_from)),
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
    def close(self) -> None:
        self._open = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @override
    def score(self, model: str, queries: Sequence[ScoringQuery]) -> Iterator[ScoringResult]:
        engine = self._opened(model).engine
        for tokenized in in_parts(self._encoder.query(query) for query in queries):
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

    def _training_settings(self, job: FineTuneJob) -> dict[str, Any]:
        """Those of training that the job's method sees."""
        unseen = {"checkpoint_seconds"} | ({"dpo_beta"} if job.method != "dpo" else set())
        return self._settings.training.model_dump(mode="json", exclude=unseen)

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
        examples = self._examples(job, job.training_file)
        validation = self._examples(job, job.validation_file) if job.validation_file else []
        torch.manual_seed(job.seed)
        model = self._trainable(job, dtype)
        if job.method == "dpo":
            examples, validation = (self._referred(model, e) for e in (examples, validation))
        engine = choose_engine(base_of(model.train()), self._settings.prefix_sharing)
        objective: Objective[Any] = CrossEntropy(engine)
        if job.method == "dpo":
            objective = DirectPreference(engine, self._settings.training.dpo_beta)
        trainer = Trainer(
            model,
            objective,
            examples,
            validation,
            self._settings.training,
            dtype=dtype,
            seed=job.seed,
        )
        first_kept = self._settings.training.epochs - job.kept_epochs

        def keep(epoch: int, step: int) -> None:
            if first_kept < epoch < self._settings.training.epochs:
                save_adapter(model, job.epoch_model(step), {})

        state = trainer.run(checkpoint, identity, report, keep)
        used = {
            "prefix_sharing": engine.shares_prefixes,
            "micro_batches": trainer.micro_batches,
        }
        tuned = self._tuned_model(job, examples, state, used)
        record = _Record(identity=identity, tuned_model=tuned)
        save_adapter(model, job.output, {_RECORD: record.model_dump_json()})
        return tuned

    def _referred(self, model: PeftModel, pairs: Sequence[Learned]) -> list[Learned]:
        """The pairs with what the model that training starts from makes of them, before it has changed.

        That is the base model (a fresh adapter adds nothing to it), or the one that the job goes on from.
        """
        engine = choose_engine(base_of(model.eval()), self._settings.prefix_sharing)
        with rounding(self._device, self._training_dtype):
            found = [pair for pair in pairs if isinstance(pair, Pair)]
            return [*with_reference(engine, found, self._settings.scoring.batch_tokens)]

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
        examples: Sequence[Learned],
        state: TrainingState,
        used: dict[str, Any],
    ) -> TunedModel:
        method = {"method": job.method} if job.method != "supervised" else {}
        return TunedModel(
            model=str(job.output),
            base_model=self.base_model,
            hyperparameters={
                "lora": self._settings.lora.model_dump(mode="json"),
                **method,
                **self._training_settings(job),
                "dtype": str(self._training_dtype).removeprefix("torch."),
                "device": describe_device(self._device),
                "loss_on": job.loss_on,
                "seed": job.seed,
                **self._dated,
                "steps": state.step,
                **used,
            },
            n_examples=len(examples),
            trained_tokens=self._settings.training.epochs * n_tokens(examples),
            seconds=state.seconds,
            cost_usd=None,
            training_curve=tuple(state.curve),
        )


def _content(example: Learned) -> list[Any]:
    """What tells an example from any other."""
    found = [[sequence.tokens, sequence.targets] for sequence in example.sequences]
    return found if isinstance(example, Pair) else found[0]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
