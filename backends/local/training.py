"""The training loop: AdamW on the adapter's weights, resumable at any step to the same result."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from backends.data import CurvePoint, Rewards
from backends.errors import DeviceMemoryError, ModelError, SettingsError
from backends.interface import Progress
from backends.local.batches import epoch_batches
from backends.local.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from backends.local.memory import check_divisible, release_cached_memory
from backends.local.objectives import Loss, Objective, rewards_of
from backends.local.passes import Passes
from backends.local.sequences import Learned, Pair, n_tokens
from backends.local.settings import TrainingSettings
from backends.local.sharding import add_up, add_up_gradients, n_ranks, rank


@dataclass(frozen=True)
class Step:
    """What a batch came to, before the optimiser's step: means, as in `CurvePoint`."""

    loss: float
    rewards: Rewards | None = None


class Trainer:
    """Trains the adapter of one model on one set of examples.

    The order of the examples depends on the seed and the epoch alone, and the learning rate on the
    step alone, so a checkpoint need not know of either.
    """

    def __init__(
        self,
        passes: Passes,
        objective: Objective[Any],
        examples: Sequence[Learned],
        validation: Sequence[Learned],
        settings: TrainingSettings,
        *,
        seed: int,
    ) -> None:
        self._passes = passes
        self._objective = objective
        self._examples = examples
        self._validation = validation
        self._settings = settings
        self._seed = seed
        self.micro_batches = settings.micro_batches
        self._parameters = passes.parameters
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._steps_per_epoch = math.ceil(len(examples) / settings.batch_size)
        self.total_steps = settings.epochs * self._steps_per_epoch

    def run(
        self,
        checkpoint: Path,
        fingerprint: str,
        report: Callable[[Progress], None],
        after_epoch: Callable[[int, int], None] = lambda *_: None,
    ) -> TrainingState:
        """Trains to the end, from the checkpoint if it is of the same job.

        `after_epoch` is told of each finished epoch (from 1) and the steps until then; of a training that
        is taken up, it may be told of the last one before that again.

        Raises:
            DeviceMemoryError: a single example does not fit the device.
            ModelError: the model computes NaN before the first step.
            SettingsError: the training diverged.
            OSError: a checkpoint can't be written.
        """
        state = self._passes.by_itself(
            lambda: load_checkpoint(checkpoint, fingerprint, self._parameters, self._optimizer)
        )
        started = time.monotonic() - state.seconds
        saved = time.monotonic()
        tokens = 0
        report(Progress(state.step, self.total_steps, tokens))
        while state.step < self.total_steps:
            batch = self._batch(state.step)
            taken = self._step(state.step, batch)
            state.step += 1
            state.curve.append(self._curve_point(state.step, taken))
            state.seconds = time.monotonic() - started
            tokens += n_tokens(batch)
            if state.step % self._steps_per_epoch == 0:
                after_epoch(state.step // self._steps_per_epoch, state.step)
            report(Progress(state.step, self.total_steps, tokens, taken.loss))
            if rank() == 0 and time.monotonic() - saved >= self._settings.checkpoint_seconds:
                save_checkpoint(checkpoint, state, self._parameters, self._optimizer)
                saved = time.monotonic()
        return state

    def _batch(self, step: int) -> list[Learned]:
        """The examples of a step (counted from 0)."""
        epoch, position = divmod(step, self._steps_per_epoch)
        return [self._examples[i] for i in self._epoch(epoch)[position]]

    @functools.lru_cache(maxsize=1)  # noqa: B019 - the trainer lives as long as its training
    def _epoch(self, epoch: int) -> list[list[int]]:
        settings = self._settings
        return epoch_batches(
            self._examples, settings.batch_size, settings.group_by, self._seed, epoch
        )

    def _step(self, step: int, batch: Sequence[Learned]) -> Step:
        """One optimiser step."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, step, self.total_steps)
        taken = self._gradients(batch)
        loss = taken.loss
        norm = torch.nn.utils.clip_grad_norm_(
            self._parameters.values(), self._settings.max_gradient_norm
        )
        if not math.isfinite(loss) or not torch.isfinite(norm):
            if step == 0:
                raise ModelError(
                    f"the model computes NaN before anything is learned (loss {loss:g}, gradient norm "
                    f"{norm.item():g}): weights of local.model or of the adapter to start from are "
                    "damaged, or too large for local.training.dtype"
                )
            raise SettingsError(
                f"local.training.learning_rate: training diverged at step {step + 1} (loss {loss:g}, "
                f"gradient norm {norm.item():g}); use a lower rate than {self._settings.learning_rate:g}"
            )
        self._optimizer.step()
        self._optimizer.zero_grad()
        return taken

    def _gradients(self, batch: Sequence[Learned]) -> Step:
        """Accumulates the batch's gradients in as many micro-batches as the memory asks for."""
        while True:
            try:
                return self._accumulate(batch)
            except RuntimeError as error:
                check_divisible(error)
                if self.micro_batches >= len(batch):
                    raise DeviceMemoryError(
                        "out of memory on a single training example; use a smaller model, shorter "
                        "examples or another local.device"
                    ) from error
            self._optimizer.zero_grad()
            release_cached_memory()
            self.micro_batches *= 2

    def _accumulate(self, batch: Sequence[Learned]) -> Step:
        count = self._objective.count(batch)
        sums = torch.zeros(4, dtype=torch.float64)
        for part, weight in self._parts(batch, self.micro_batches):
            computed = self._back(part, weight, count)
            sums[0] += computed.summed.item()
            if computed.rewards is not None:
                sums[1:] += weight * computed.rewards.cpu().double()
        add_up_gradients([*self._parameters.values()])
        total, rewards = add_up(sums).split([1, 3])
        is_of_pairs = isinstance(batch[0], Pair)
        return Step(total.item(), rewards_of(rewards, count) if is_of_pairs else None)

    def _back(self, part: Sequence[Learned], weight: int, count: int) -> Loss:
        """Adds to the gradients; the part's share of the batch's loss, with its own rewards."""

        def share(log_probabilities: torch.Tensor) -> Loss:
            computed = self._objective.loss(part, log_probabilities)
            # Divided by the whole batch's count, micro-batches add up to the batch's own gradient.
            return replace(computed, summed=weight * computed.summed / count)

        return self._passes.back(self._objective.sequences(part), share)

    def _parts(
        self, examples: Sequence[Learned], n_parts: int
    ) -> Iterator[tuple[Sequence[Learned], int]]:
        """What this process computes of them, in so many passes, each with its weight.

        Neighbours in length share a pass, so that little of it is padding. Processes that share a model
        make passes together: one that has no examples left computes one in vain, of weight 0.
        """
        by_length = sorted(examples, key=lambda example: len(example.tokens))
        mine = by_length[rank() :: n_ranks()]
        most = math.ceil(len(examples) / n_ranks())
        size = math.ceil(most / n_parts)
        for start in range(0, most, size):
            part = mine[start : start + size]
            yield (part, 1) if part else (by_length[:1], 0)

    def _curve_point(self, step: int, taken: Step) -> CurvePoint:
        end_of_epoch = step % self._steps_per_epoch == 0
        is_due = self._validation and end_of_epoch
        validation_loss = self._passes.by_itself(self._validation_loss) if is_due else None
        return CurvePoint(
            step=step,
            train_loss=taken.loss,
            validation_loss=validation_loss,
            rewards=taken.rewards,
        )

    @torch.no_grad()
    def _validation_loss(self) -> float:
        size = math.ceil(self._settings.batch_size / self.micro_batches)
        parts = self._parts(self._validation, math.ceil(len(self._validation) / size))
        total = sum(weight * self._evaluated(part) for part, weight in parts)
        count = self._objective.count(self._validation)
        return add_up(torch.tensor(total, dtype=torch.float64)).item() / count

    def _evaluated(self, part: Sequence[Learned]) -> float:
        found = self._passes.evaluated(self._objective.sequences(part))
        return self._objective.loss(part, found).summed.item()


def learning_rate(settings: TrainingSettings, step: int, total_steps: int) -> float:
    """The rate of a step (counted from 0): linear warm-up, then the schedule down to 0."""
    warmup_steps = round(settings.warmup_fraction * total_steps)
    if step < warmup_steps:
        return settings.learning_rate * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return settings.learning_rate * _decay(settings.schedule, done)


def _decay(schedule: Literal["linear", "cosine", "constant"], done: float) -> float:
    match schedule:
        case "linear":
            return 1 - done
        case "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        case "constant":
            return 1.0
