"""A model and its adapters, asked from asyncio by many at once."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.errors import DataError, KaarelBetError, SettingsError
from backends.local.answers import GeneratedToken
from backends.local.constraints import Grammars
from backends.local.device import choose_device
from backends.local.encoding import Encoder
from backends.local.inference_requests import Generation, PromptScoring, Request
from backends.local.models import context_length, load_tokenizer, locate, vocabulary_size
from backends.local.open_model import OpenModel
from backends.local.placing import check_placing, n_processes
from backends.local.sampling import MOST_LIKELIEST, Sampling
from backends.local.scheduler import Scheduler
from backends.local.sequences import TokenScore
from backends.local.settings import LocalSettings

_log = logging.getLogger(__name__)


class Inference:
    """Answers and scores on a thread of its own, in the settings' dtypes for each.

    Requests that are under way at the same time are computed together, which changes none of their
    results beyond rounding. All methods but `load` and `close` return at once or are awaited, and may
    be called from any event loop.
    """

    def __init__(self, settings: LocalSettings, *, max_adapters: int) -> None:
        """Nothing is loaded before the first request or `load`.

        Raises:
            SettingsError: the settings ask for several processes, or for what can't be done here.
        """
        device = choose_device(settings.device)
        check_placing(settings, device)
        if n_processes(settings, device) > 1:
            raise SettingsError(
                "local.processes: a server answers from one process; set it to 1, and local.shard to none"
            )
        self._settings = settings
        self._max_adapters = max_adapters
        self._opened: OpenModel | None = None
        self._scheduler: Scheduler | None = None
        self._opening = threading.Lock()
        self._changed = threading.Condition()
        self._arrived: list[Request] = []
        self._forgotten: list[Path] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's. Raises ModelError where it can't be had."""
        return load_tokenizer(self._location)

    @cached_property
    def encoder(self) -> Encoder:
        """As `LocalBackend`'s. Raises ModelError where the model can't be had."""
        length = context_length(self._location)
        return Encoder(self.tokenizer, length, self._settings.day)

    @cached_property
    def grammars(self) -> Grammars:
        """What answers can be held to. Raises ModelError, and UnsupportedError as `Grammars`."""
        return Grammars(self.tokenizer, self._n_tokens, self._open().decoder.vocabulary.ends)

    def load(self) -> None:
        """Loads the base model now. Raises ModelError where it can't be had."""
        _ = self._open().decoder

    async def generate(
        self, adapter: Path | None, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[GeneratedToken, None]:
        """Answers to a prompt, token by token; those of several samples come interleaved.

        `adapter` is a PEFT directory, None the base model. Closing the iterator, or cancelling who
        waits for it, ends the work at the next token.

        Raises:
            DataError: an empty prompt, one that leaves no room for `max_tokens`, or a token that the
                model does not have.
            ModelError: the adapter or the base model can't be had.
            DeviceMemoryError: this request alone does not fit the device.
        """
        self._check(prompt, len(prompt) + sampling.max_tokens, sampling.logit_bias)
        channel = _Channel()
        request = Generation(adapter, channel.post, prompt, sampling, channel.post)
        unfinished = sampling.n
        try:
            self._submit(request)
            while unfinished:
                for token in await channel.receive():
                    unfinished -= token.finish is not None
                    yield token
        finally:
            request.cancelled = True

    async def prompt_log_probabilities(
        self, adapter: Path | None, tokens: Sequence[int], top: int = 0
    ) -> list[TokenScore | None]:
        """Exact scores of each token after those before it, None for the first.

        `top` (0..20) asks for that many of the likeliest tokens at each place. Raises as `generate`.
        """
        if not 0 <= top <= MOST_LIKELIEST:
            raise ValueError(f"top: {top} is out of range (0..{MOST_LIKELIEST})")
        self._check(tokens, len(tokens), ())
        if len(tokens) == 1:
            return [None]
        channel = _Channel()
        request = PromptScoring(adapter, channel.post, tokens, top, channel.post)
        try:
            self._submit(request)
            return [None, *await channel.receive()]
        finally:
            request.cancelled = True

    def forget(self, adapter: Path) -> None:
        """Lets go of a model that was deleted; what is under way for it fails with ModelError."""
        with self._changed:
            self._forgotten.append(adapter)
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread; what is under way fails."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @cached_property
    def _location(self) -> str:
        return locate(self._settings.model)

    @cached_property
    def _n_tokens(self) -> int:
        return vocabulary_size(self._location)

    def _check(self, tokens: Sequence[int], length: int, others: Any) -> None:  # noqa: ANN401
        if not tokens:
            raise DataError("the prompt is empty; give at least one token")
        self.encoder.check_length(length)
        for token in (*tokens, *others):
            if not 0 <= token < self._n_tokens:
                raise DataError(f"token {token} is not one of the model's {self._n_tokens}")

    def _submit(self, request: Request) -> None:
        with self._changed:
            if self._closed:
                raise KaarelBetError("the model was closed")
            self._arrived.append(request)
            self._changed.notify()

    def _open(self) -> OpenModel:
        with self._opening:
            if self._opened is None:
                self._opened = OpenModel(
                    self._settings, self._location, self.tokenizer, max_adapters=self._max_adapters
                )
            return self._opened

    def _run(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._closed:
                    break  # what has arrived is told so below
                arrived, self._arrived = self._arrived, []
                forgotten, self._forgotten = self._forgotten, []
            try:
                self._scheduler = self._scheduler or Scheduler(self._open())
            except Exception as error:  # whoever asked is told; the next may have better luck
                for request in arrived:
                    request.give_up(error)
                continue
            for adapter in forgotten:
                self._scheduler.forget(adapter)
            self._scheduler.submit(arrived)
            self._turn(self._scheduler)
        closed = KaarelBetError("the model was closed")
        for request in self._arrived:
            request.give_up(closed)
        if self._scheduler is not None:
            self._scheduler.fail_all(closed)

    def _has_work(self) -> bool:
        busy = self._scheduler is not None and self._scheduler.busy
        forgotten = self._forgotten and self._scheduler is not None
        return bool(self._arrived or forgotten or self._closed or busy)

    def _turn(self, scheduler: Scheduler) -> None:
        try:
            scheduler.turn()
        except Exception as error:  # a mistake of ours must not leave everyone waiting for ever
            _log.exception("all requests under way failed")
            scheduler.fail_all(error)


class _Channel:
    """From the thread to the coroutine that waits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def post(self, item: object) -> None:
        """Sends results or an exception; nobody minds if the loop was closed meanwhile."""
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:
            return

    async def receive(self) -> Any:  # noqa: ANN401
        """The next results. Raises the exception that was sent."""
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item
