"""Several trainings in one pass: they share the base model, and each row of a pass has its own adapter.

Every training goes its own way, in a thread of its own: its order, its rate, its optimiser and its
checkpoints are those that it has alone. Only what a step computes waits for the steps of the others, and
is computed with them. What each is given is its own loss, and gradients of its own adapter.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from peft.tuners.lora import LoraLayer

from backends.data import TunedModel
from backends.errors import DeviceMemoryError, SettingsError
from backends.interface import FineTuneJob, Progress
from backends.local.adapters import base_of
from backends.local.engine import say_once
from backends.local.fine_tuning import FineTuning, Prepared
from backends.local.fused_lora import MixedRowsError, is_fused
from backends.local.objectives import Loss, rounding
from backends.local.passes import Alone, LossOf, Passes
from backends.local.prefix_engine import PrefixEngine
from backends.local.sequences import TokenSequence
from backends.local.training_noise import training_noise

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Asked:
    """A training's part of a pass."""

    sequences: Sequence[TokenSequence]
    loss: LossOf
    done: Future[Loss] = field(default_factory=Future[Loss])


class OnePass:
    """Trainings of one base model, loaded while any is there; any thread may bring one, at any time."""

    def __init__(self) -> None:
        # All that touches the model is done in one thread: it is changed while trainings come and go.
        self._thread = ThreadPoolExecutor(1)
        self._changed = threading.Lock()
        self._asked: dict[str, _Asked] = {}
        self._names: set[str] = set()
        self._n_joined = 0
        self._model: _Model | None = None

    def run(
        self,
        tuning: FineTuning,
        job: FineTuneJob,
        prepare: Callable[[], Prepared],
        report: Callable[[Progress], None],
    ) -> TunedModel:
        """As `FineTuning.run`; what prepares it is called while nothing is computed.

        All trainings are the same `tuning`'s.
        """
        with self._changed:
            self._n_joined += 1
            name = f"training{self._n_joined}"
            self._names.add(name)
        try:
            prepared = self.in_turn(prepare)
            member = self.in_turn(lambda: self._member(tuning, job, name))
            return tuning.run(job, prepared, report, member)
        except DeviceMemoryError as error:
            raise DeviceMemoryError(
                f"{error}; or fewer trainings in one pass (local.workers)"
            ) from error
        finally:
            self._leave(name)

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """Does it while nothing is computed."""
        return self._thread.submit(work).result()

    def back(self, name: str, asked: _Asked) -> Loss:
        """Computes a training's part, once all others have said what theirs is."""
        with self._changed:
            self._asked[name] = asked
            self._go_if_all_are_there()
        return asked.done.result()

    def _go_if_all_are_there(self) -> None:
        if self._asked and len(self._asked) == len(self._names):
            asked, self._asked = self._asked, {}
            self._thread.submit(self._compute, asked)

    def _member(self, tuning: FineTuning, job: FineTuneJob, name: str) -> "_Member":
        if self._model is None:
            self._model = _Model(tuning, job, name)
        else:
            self._model.add(job, name)
        return _Member(self, self._model, name)

    def _leave(self, name: str) -> None:
        try:
            self.in_turn(lambda: self._drop(name))
        finally:
            with self._changed:  # or the others would wait for ever
                self._names.remove(name)
                self._go_if_all_are_there()

    def _drop(self, name: str) -> None:
        if self._model is not None and not self._model.has_others(name):
            self._model = None
        elif self._model is not None:
            self._model.drop(name)

    def _compute(self, asked: dict[str, _Asked]) -> None:
        model = self._model
        assert model is not None  # they have it in common
        try:
            losses = model.back_together(asked) if len(asked) > 1 else None
        except Exception as error:  # is raised where each waits
            for one in asked.values():
                one.done.set_exception(error)
            return
        for name, one in asked.items():
            try:
                one.done.set_result(losses[name] if losses else model.back(name, one))
            except Exception as error:  # likewise
                one.done.set_exception(error)


class _Model:
    """The base model with an adapter for each training."""

    def __init__(self, tuning: FineTuning, job: FineTuneJob, name: str) -> None:
        """With one. Raises as `FineTuning.trainable`; SettingsError: the model draws noise."""
        self.tuned = tuning.trainable(job, name)
        base = base_of(self.tuned.train())
        if noise := training_noise(base):
            raise SettingsError(
                f"local.one_pass: {type(base).__name__} draws noise in training ({', '.join(noise)}), "
                "which would be one stream for all; set it to false"
            )
        self.alone = Alone(self.tuned, tuning.settings.prefix_sharing, tuning.dtype)
        """Of whichever adapter is the active one."""
        self.engine = self.alone.engine
        self._tuning = tuning
        self._active = [name]
        head = base_of(self.tuned).get_output_embeddings()
        # The head is given chosen rows alone: not as many of each adapter as the other layers are.
        self._one_by_one = isinstance(head, LoraLayer) or not (
            isinstance(self.engine, PrefixEngine) and is_fused(self.tuned)
        )

    def add(self, job: FineTuneJob, name: str) -> None:
        """One more training's."""
        self._tuning.trainable(job, name, self.tuned).train()
        self._active = []  # that it was is not said

    def has_others(self, name: str) -> bool:
        """Whether any other training's is there."""
        return bool(self.tuned.peft_config.keys() - {name})

    def drop(self, name: str) -> None:
        """One training's less; there are others."""
        if name in self.tuned.peft_config:
            self.activate([next(other for other in self.tuned.peft_config if other != name)])
            self.tuned.delete_adapter(name)

    def activate(self, names: list[str]) -> None:
        """Makes it the model of these adapters."""
        if names != self._active:
            # Only of a single one PeftModel itself takes the name.
            self.tuned.base_model.set_adapter(names)  # pyright: ignore[reportCallIssue]
            self._active = names

    def back(self, name: str, asked: _Asked) -> Loss:
        """Adds to a training's gradients."""
        self.activate([name])
        return self.alone.back(asked.sequences, asked.loss)

    def back_together(self, asked: dict[str, _Asked]) -> dict[str, Loss] | None:
        """The same of several at once; None where that can't be: then nothing was added."""
        if self._one_by_one or not isinstance(self.engine, PrefixEngine):
            name = type(base_of(self.tuned)).__name__
            say_once(f"{name}: trainings are computed one by one (local.one_pass)")
            return None
        names = sorted(asked)
        self.activate(names)
        parts = [asked[name] for name in names]
        with rounding(self.tuned.device, self.alone.dtype):
            try:
                found = self.engine.together([part.sequences for part in parts])
            except MixedRowsError:
                self._one_by_one = True
                return None
            losses = [part.loss(each) for part, each in zip(parts, found, strict=True)]
        summed = torch.stack([loss.summed for loss in losses]).sum()
        # What is not a number spreads, hidden or not; only the one that diverged is to fail.
        if not summed.isfinite():
            return None
        summed.backward()
        return dict(zip(names, losses, strict=True))


class _Member(Passes):
    """One of the trainings."""

    def __init__(self, one_pass: OnePass, model: _Model, name: str) -> None:
        self.model, self.engine, self.dtype = model.tuned, model.engine, model.alone.dtype
        self.adapter = name
        self._one_pass = one_pass
        self._activate = partial(model.activate, [name])

    def back(self, sequences: Sequence[TokenSequence], loss: LossOf) -> Loss:
        """As `Passes.back`."""
        return self._one_pass.back(self.adapter, _Asked(sequences, loss))

    def by_itself(self, work: Callable[[], Result]) -> Result:
        """As `Passes.by_itself`."""

        def of_mine() -> Result:
            self._activate()
            return work()

        return self._one_pass.in_turn(of_mine)
