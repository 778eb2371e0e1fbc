"""One fine-tune of a base model: adapter, engine, objective and trainer put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from backends.data import TunedModel
from backends.interface import FineTuneJob, Progress
from backends.local.adapters import (
    DEFAULT_ADAPTER,
    another_adapter,
    base_of,
    load_adapter,
    new_adapter,
    save_adapter,
)
from backends.local.checkpoints import TrainingState
from backends.local.device import describe_device
from backends.local.engine import choose_engine
from backends.local.objectives import (
    CrossEntropy,
    DirectPreference,
    Objective,
    rounding,
    with_reference,
)
from backends.local.passes import Alone, Passes
from backends.local.placing import open_base, placed
from backends.local.recomputing import recompute_activations
from backends.local.sequences import Learned, Pair, n_tokens
from backends.local.settings import LocalSettings
from backends.local.sharding import gathered, in_step, n_ranks, rank, share
from backends.local.training import Trainer
from backends.schema import Strict

RECORD = "tuned_model.json"


class Record(Strict):
    """What lies beside a finished adapter: which one it is, and what was done."""

    identity: str
    tuned_model: TunedModel


@dataclass(frozen=True)
class Prepared:
    """What a job comes to: its files as tokens, what its model depends on, and where it is taken up."""

    examples: Sequence[Learned]
    validation: Sequence[Learned]
    identity: str
    checkpoint: Path


@dataclass(frozen=True)
class FineTuning:
    """Of one base model, on this device; `dated` is the day's date, where the model sees it."""

    settings: LocalSettings
    location: str
    device: torch.device
    dtype: torch.dtype
    dated: Mapping[str, str]

    def run(
        self,
        job: FineTuneJob,
        prepared: Prepared,
        report: Callable[[Progress], None],
        passes: Passes | None = None,
    ) -> TunedModel:
        """Trains, from the checkpoint if it is of that identity, and puts the adapter in place.

        Without `passes`, on a model of its own. Raises as `Trainer.run`.
        """
        if passes is None:
            passes = Alone(self.trainable(job), self.settings.prefix_sharing, self.dtype)
        model = passes.model
        examples, validation = prepared.examples, prepared.validation
        objective: Objective[Any] = CrossEntropy()
        if job.method == "dpo":
            objective = DirectPreference(self.settings.training.dpo_beta)
            examples, validation = (
                passes.by_itself(partial(self._referred, model, each))
                for each in (examples, validation)
            )
        trainer = Trainer(
            passes, objective, examples, validation, self.settings.training, seed=job.seed
        )
        first_kept = self.settings.training.epochs - job.kept_epochs

        def keep(epoch: int, step: int) -> None:
            if rank() == 0 and first_kept < epoch < self.settings.training.epochs:
                save(job.epoch_model(step), {})

        def save(target: Path, extra: dict[str, str]) -> None:
            passes.by_itself(lambda: save_adapter(model, target, extra, passes.adapter))

        state = trainer.run(prepared.checkpoint, prepared.identity, report, keep)
        used = {
            "prefix_sharing": passes.engine.shares_prefixes,
            "micro_batches": trainer.micro_batches,
            **placed(self.settings, self.device),
        }
        tuned = self._tuned_model(job, examples, state, used)
        record = Record(identity=prepared.identity, tuned_model=tuned)
        if rank() == 0:
            save(job.output, {RECORD: record.model_dump_json()})
        return tuned

    def _referred(self, model: PeftModel, pairs: Sequence[Learned]) -> list[Learned]:
        """The pairs with what the model that training starts from makes of them, before it has changed.

        That is the base model (a fresh adapter adds nothing to it), or the one that the job goes on from.
        """
        base = base_of(model.eval())
        engine = choose_engine(base, self.settings.prefix_sharing)
        found = [pair for pair in pairs if isinstance(pair, Pair)]
        mine = share(found, rank(), n_ranks())
        with rounding(self.device, self.dtype), in_step(base):
            referred = with_reference(engine, mine, self.settings.scoring.batch_tokens)
        model.train()
        return [*gathered(referred)]

    def trainable(
        self, job: FineTuneJob, name: str = DEFAULT_ADAPTER, others: PeftModel | None = None
    ) -> PeftModel:
        """The base model with the adapter that the job is about, beside those that it has.

        Raises:
            ModelError: the base model, or the adapter that the job starts from, can't be had.
            SettingsError: the model takes no such adapter.
        """
        torch.manual_seed(job.seed)
        if others is not None:
            return another_adapter(others, name)
        base = open_base(self.settings, self.location, self.device, self.dtype)
        if job.starts_from is not None:
            model = load_adapter(base, Path(job.starts_from), trainable=True)
        else:
            model = new_adapter(base, self.settings.lora, name)
        if self.settings.training.gradient_checkpointing:
            recompute_activations(base)
        return model

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
            base_model=self.settings.model,
            hyperparameters={
                "lora": self.settings.lora.model_dump(mode="json"),
                **method,
                **training_settings(self.settings, job),
                "dtype": str(self.dtype).removeprefix("torch."),
                "device": describe_device(self.device),
                "loss_on": job.loss_on,
                "seed": job.seed,
                **self.dated,
                "steps": state.step,
                **used,
            },
            n_examples=len(examples),
            trained_tokens=self.settings.training.epochs * n_tokens(examples),
            seconds=state.seconds,
            cost_usd=None,
            training_curve=tuple(state.curve),
        )


def training_settings(settings: LocalSettings, job: FineTuneJob) -> dict[str, Any]:
    """Those of training that the job's method sees, and that its model depends on."""
    unseen = {"checkpoint_seconds", "gradient_checkpointing"}
    if job.method != "dpo":
        unseen.add("dpo_beta")
    return settings.training.model_dump(mode="json", exclude=unseen)
