"""Many requests at once give what each gives alone, and one's failure is nobody else's."""

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from backends.data import ScoringQuery
from backends.errors import DataError, DeviceMemoryError, KaarelBetError, ModelError
from backends.local.adapter_cache import AdapterCache
from backends.local.adapters import new_adapter, save_adapter
from backends.local.answers import GeneratedToken
from backends.local.backend import LocalBackend
from backends.local.decoding import Batch
from backends.local.inference import Inference
from backends.local.models import load_model
from backends.local.plain import PlainEngine
from backends.local.sampling import Sampling
from backends.local.sequences import TokenSequence
from backends.local.settings import LocalSettings, LoraSettings
from tests.models import ARCHITECTURES

PROMPT = list(range(100, 130))


def settings(model: Path, **changes: Any) -> LocalSettings:
    return LocalSettings(model=str(model), device="cpu", **changes)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def each(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Iterator[Inference]:
    inference = Inference(settings(tiny_models[request.param]), max_adapters=1)
    yield inference
    inference.close()


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three adapters, the last of them on fewer modules."""
    made = []
    for seed in range(3):
        torch.manual_seed(seed)
        base = load_model(str(tiny_model), torch.device("cpu"), torch.float32)
        modules = ("q_proj",) if seed == 2 else "all-linear"
        tuned = new_adapter(base, LoraSettings(rank=2, alpha=8, target_modules=modules))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        made.append(tmp_path_factory.mktemp("adapters") / str(seed))
        save_adapter(tuned, made[-1], {})
    return made


@pytest.fixture
def inference(tiny_model: Path) -> Iterator[Inference]:
    opened = Inference(settings(tiny_model), max_adapters=2)
    yield opened
    opened.close()


async def answer(
    inference: Inference, prompt: list[int], sampling: Sampling, adapter: Path | None = None
) -> list[GeneratedToken]:
    tokens = [token async for token in inference.generate(adapter, prompt, sampling)]
    return sorted(tokens, key=lambda token: token.sample)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def gathered(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    return await asyncio.gather(*works, return_exceptions=True)


def assert_same(ours: list[GeneratedToken], theirs: list[GeneratedToken]) -> None:
    assert [token.token for token in ours] == [token.token for token in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.score.log_probability == pytest.approx(
            other.score.log_probability, rel=1e-5, abs=1e-5
        )
        tops = [[value for _, value in made.score.top] for made in (one, other)]
        assert tops[0] == pytest.approx(tops[1], rel=1e-5)
        assert (one.text, one.finish) == (other.text, other.finish)


def mixed(n: int) -> list[tuple[list[int], Sampling]]:
    draw = random.Random(0)
    return [
        (
            PROMPT[: draw.randrange(1, 30)] + draw.choices(range(1000), k=draw.randrange(1, 30)),
            Sampling(
                max_tokens=draw.randrange(1, 20),
                temperature=draw.choice([0, 0.7, 1]),
                top_p=draw.choice([0.8, 1]),
                seed=i,
                n=draw.choice([1, 1, 2]),
                top=draw.choice([0, 3, 20]),
            ),
        )
        for i in range(n)
    ]


def test_thirty_requests_at_once_are_answered_as_each_alone(each: Inference) -> None:
    requests = mixed(30)

    async def late(place: int) -> list[GeneratedToken]:
        await asyncio.sleep(0.002 * place)  # so that some join answers under way
        return await answer(each, *requests[place])

    async def work() -> None:
        together = await asyncio.gather(*map(late, range(30)))
        for place, found in enumerate(together):
            assert_same(found, await answer(each, *requests[place]))
            assert sum(token.finish is not None for token in found) == requests[place][1].n

    run(work())


def test_log_probabilities_of_an_answer_are_the_engines_own(each: Inference) -> None:
    """Whatever the temperature, the bias and the nucleus: of the model's own distribution."""
    sampling = Sampling(
        max_tokens=12, temperature=1.7, top_p=0.9, seed=3, top=20, logit_bias={7: 3.0, 8: -100}
    )

    async def work() -> None:
        found = await answer(each, PROMPT, sampling)
        tokens = PROMPT + [token.token for token in found]
        model = AutoModelForCausalLM.from_pretrained(each._location, dtype=torch.float32).eval()
        positions = list(range(len(PROMPT), len(tokens)))
        with torch.inference_mode():
            exact = PlainEngine(model).log_probabilities([TokenSequence(tokens, positions)])
        scores = await each.prompt_log_probabilities(None, tokens, 20)
        assert scores[0] is None
        assert len(scores) == len(tokens)
        for token, expected, again in zip(found, exact, scores[len(PROMPT) :], strict=True):
            assert token.score.log_probability == pytest.approx(expected.item(), rel=1e-5)
            assert again is not None
            assert again.log_probability == pytest.approx(expected.item(), rel=1e-5)
            values = [value for _, value in token.score.top]
            assert [value for _, value in again.top] == pytest.approx(values, rel=1e-5)
            assert len(values) == 20
            assert values == sorted(values, reverse=True)
            # The token itself is among them wherever its log-probability says that it should be.
            inside = dict(token.score.top).get(token.token)
            if token.score.log_probability > values[-1]:
                assert inside == token.score.log_probability

    run(work())


def test_a_shared_prompt_scores_as_alone(inference: Inference) -> None:
    texts = [[*PROMPT[:n], n, n + 1] for n in range(0, 30, 3)]

    async def work() -> None:
        together = await gathered(
            *(inference.prompt_log_probabilities(None, t, i) for i, t in enumerate(texts))
        )
        for i, (text, scores) in enumerate(zip(texts, together, strict=True)):
            alone = await inference.prompt_log_probabilities(None, text, i)
            for one, other in zip(scores[1:], alone[1:], strict=True):
                assert other is not None
                assert one.log_probability == pytest.approx(other.log_probability, rel=1e-5)
                assert len(one.top) == i

    run(work())
    assert run(inference.prompt_log_probabilities(None, [5])) == [None]


def test_a_seed_gives_the_same_answer_and_samples_differ(inference: Inference) -> None:
    async def work() -> None:
        sampling = Sampling(max_tokens=8, seed=4, n=3)
        one, other = await gathered(*(answer(inference, PROMPT, sampling) for _ in range(2)))
        assert_same(one, other)
        assert len({tuple(t.token for t in one if t.sample == i) for i in range(3)}) == 3
        (alone,) = await gathered(answer(inference, PROMPT, Sampling(max_tokens=8, seed=4)))
        assert_same(alone, [token for token in one if token.sample == 0])

    run(work())


def test_an_answer_ends_before_a_stop_string(inference: Inference) -> None:
    async def work() -> None:
        whole = await answer(inference, PROMPT, Sampling(max_tokens=12, seed=1))
        text = "".join(token.text for token in whole)
        stop = text[5:9]
        cut = await answer(inference, PROMPT, Sampling(max_tokens=12, seed=1, stop=(stop,)))
        assert "".join(token.text for token in cut) == text[: text.index(stop)]
        assert cut[-1].finish == "stop"
        assert not cut[-1].is_end
        assert len(cut) < len(whole)

    run(work())


def test_the_end_token_ends_an_answer_and_is_no_text(inference: Inference) -> None:
    end = inference.tokenizer.eos_token_id
    assert isinstance(end, int)
    sampling = Sampling(max_tokens=5, temperature=0, logit_bias={end: 100})
    (token,) = run(answer(inference, PROMPT, sampling))
    assert (token.token, token.finish, token.is_end) == (end, "stop", True)
    assert (token.text, token.token_bytes) == ("", b"")


def test_adapters_share_the_base_and_score_as_the_local_backend(
    tiny_model: Path, adapters: list[Path], inference: Inference
) -> None:
    """Three adapters through a cache of two, the base in between, several times over."""
    backend = LocalBackend(settings(tiny_model))
    query = ScoringQuery(id="q", prompt="One two", candidates={"a": " three", "b": " Tomé"})
    tokenized = inference.encoder.query(query)

    async def work() -> None:
        order = [None, *adapters, None, *reversed(adapters)]
        asked = [
            (adapter, label, tokenized.context + tokens)
            for adapter in order
            for label, tokens in tokenized.candidates.items()
        ]
        scores = await gathered(*(inference.prompt_log_probabilities(a, t) for a, _, t in asked))
        totals = set()
        for (adapter, label, _), found in zip(asked, scores, strict=True):
            total = sum(s.log_probability for s in found[len(tokenized.context) :])
            name = backend.base_model if adapter is None else str(adapter)
            (expected,) = backend.score(name, [query])
            assert total == pytest.approx(expected.candidates[label].total.low, rel=1e-5)
            totals.add(round(total, 3))
        assert len(totals) == 8

    run(work())


def test_answers_of_several_adapters_at_once_are_those_of_each(
    adapters: list[Path], inference: Inference
) -> None:
    async def work() -> None:
        sampling = Sampling(max_tokens=10, temperature=0)
        models = [None, *adapters]
        together = await gathered(*(answer(inference, PROMPT, sampling, m) for m in models))
        for model, found in zip(models, together, strict=True):
            assert_same(found, await answer(inference, PROMPT, sampling, model))
        assert len({tuple(token.token for token in found) for found in together}) == 4

    run(work())
    assert inference._opened is not None
    assert [len(each.adapters._loaded) for each in inference._opened._loaded.values()] == [2]


def test_more_adapters_than_fit_the_memory_take_turns(
    adapters: list[Path], inference: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    load = AdapterCache._load

    def noted(self: AdapterCache, adapter: Path) -> None:
        loaded.append(adapter)
        load(self, adapter)

    monkeypatch.setattr(AdapterCache, "_load", noted)
    sampling = Sampling(max_tokens=10, temperature=0)
    found = run(gathered(*(answer(inference, PROMPT, sampling, m) for m in adapters)))
    assert [len(tokens) for tokens in found] == [10] * 3
    assert len(loaded) < 8  # not one for every token


def test_an_adapter_gets_its_turn_while_the_others_are_asked_on_and_on(
    adapters: list[Path], inference: Inference
) -> None:
    async def work() -> None:
        waits = True

        async def ask_on(adapter: Path) -> None:
            while waits:
                await answer(inference, PROMPT, Sampling(max_tokens=8, seed=1), adapter)

        asking = [asyncio.create_task(ask_on(a)) for a in adapters[:2] * 3]
        await asyncio.sleep(0.1)
        score = inference.prompt_log_probabilities(adapters[2], PROMPT)
        turn = gathered(answer(inference, PROMPT, Sampling(max_tokens=8), adapters[2]), score)
        found, scores = await asyncio.wait_for(turn, 60)
        assert (len(found), len(scores)) == (8, len(PROMPT))
        waits = False
        await asyncio.gather(*asking)

    run(work())


def test_a_request_for_many_answers_does_not_hold_up_the_next(inference: Inference) -> None:
    async def work() -> None:
        ended: list[str] = []

        async def ask(name: str, sampling: Sampling) -> list[GeneratedToken]:
            found = await answer(inference, PROMPT, sampling)
            ended.append(name)
            return found

        many = asyncio.create_task(ask("many", Sampling(max_tokens=12, seed=1, n=80)))
        await asyncio.sleep(0)  # it is asked first
        await ask("one", Sampling(max_tokens=2, seed=1))
        assert len({token.sample for token in await many}) == 80
        assert ended == ["one", "many"]

    run(work())


def test_answers_in_parts_are_those_at_once(
    inference: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(max_tokens=6, seed=1, n=8)
    expected = run(answer(inference, PROMPT, sampling))
    monkeypatch.setattr("backends.local.inference_requests._MAX_PART_ROWS", 3)
    assert_same(run(answer(inference, PROMPT, sampling)), expected)
    # Each takes more than a request's share.
    monkeypatch.setattr("backends.local.inference_requests._MAX_PART_POSITIONS", 10)
    assert_same(run(answer(inference, PROMPT, sampling)), expected)


def test_a_bad_adapter_fails_its_own_requests_only(
    adapters: list[Path], inference: Inference, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "adapter_config.json").write_text('{"peft_type": "LORA", "task_type": "CAUSAL_LM"}')
    (bad / "adapter_model.safetensors").write_bytes(b"nonsense")
    sampling = Sampling(max_tokens=6, temperature=0)

    async def work() -> None:
        expected = await answer(inference, PROMPT, sampling, adapters[0])
        failed, missing, found, plain = await gathered(
            answer(inference, PROMPT, sampling, bad),
            answer(inference, PROMPT, sampling, tmp_path / "none"),
            answer(inference, PROMPT, sampling, adapters[0]),
            answer(inference, PROMPT, sampling),
        )
        assert isinstance(failed, ModelError)
        assert isinstance(missing, ModelError)
        assert_same(found, expected)
        assert len(plain) == 6

    run(work())


def test_a_forgotten_model_is_read_anew(adapters: list[Path], inference: Inference) -> None:
    async def work() -> None:
        sampling = Sampling(max_tokens=6, temperature=0)
        before = await answer(inference, PROMPT, sampling, adapters[0])
        inference.forget(adapters[0])
        assert_same(await answer(inference, PROMPT, sampling, adapters[0]), before)

    run(work())


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_who_stops_asking_frees_the_row(inference: Inference, how: str) -> None:
    async def work() -> None:
        async def first_only() -> None:
            generation = inference.generate(None, PROMPT, Sampling(max_tokens=400, seed=1))
            async with contextlib.aclosing(generation) as tokens:  # pyright: ignore
                async for _ in tokens:
                    if how == "closed":
                        return
                    asyncio.current_task().cancel()  # pyright: ignore

        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.create_task(first_only())
        scheduler = inference._scheduler
        assert scheduler is not None
        until = time.monotonic() + 20
        while scheduler.busy and time.monotonic() < until:
            await asyncio.sleep(0.01)
        assert not scheduler.busy
        assert len(await answer(inference, PROMPT, Sampling(max_tokens=3, seed=1))) == 3

    run(work())


@pytest.mark.parametrize(
    ("prompt", "sampling", "problem"),
    [
        ([], Sampling(4), "empty"),
        (PROMPT, Sampling(500), "longer than the model's context"),
        ([10**6], Sampling(4), "token 1000000"),
        (PROMPT, Sampling(4, logit_bias={-1: 1.0}), "token -1"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    inference: Inference, prompt: list[int], sampling: Sampling, problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        run(answer(inference, prompt, sampling))


def test_a_batch_that_does_not_fit_is_continued_in_parts(
    inference: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = mixed(12)
    real = Batch._continued

    def limited(self: Batch, *arguments: Any) -> torch.Tensor:
        logits = real(self, *arguments)  # the cache has been given the token when memory runs out
        if len(self.rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits

    async def work() -> None:
        expected = [await answer(inference, *request) for request in requests]
        monkeypatch.setattr(Batch, "_continued", limited)
        found = await gathered(*(answer(inference, *request) for request in requests))
        for ours, theirs in zip(found, expected, strict=True):
            assert_same(ours, theirs)

    run(work())


def test_a_request_that_fits_no_memory_fails_alone(
    inference: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Batch._continued

    def limited(self: Batch, *arguments: Any) -> torch.Tensor:
        if any(len(row.prompt) > 40 for row in self.rows):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *arguments)

    monkeypatch.setattr(Batch, "_continued", limited)
    sampling = Sampling(max_tokens=4, temperature=0)

    async def work() -> None:
        one, big, other = await gathered(
            *(answer(inference, prompt, sampling) for prompt in (PROMPT, PROMPT * 2, PROMPT[:9]))
        )
        assert isinstance(big, DeviceMemoryError)
        assert len(one) == len(other) == 4

    run(work())


def test_a_mistake_of_ours_fails_what_it_met_and_the_thread_lives_on(
    inference: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(max_tokens=4, temperature=0)

    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "_continued", broken)
        with pytest.raises(RuntimeError, match="shapes"):
            run(answer(inference, PROMPT, sampling))
    assert len(run(answer(inference, PROMPT, sampling))) == 4


def test_closing_fails_what_is_under_way(inference: Inference) -> None:
    async def work() -> None:
        waiting = asyncio.create_task(answer(inference, PROMPT, Sampling(max_tokens=450, seed=1)))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(inference.close)
        with pytest.raises(KaarelBetError, match="closed"):
            await waiting
        with pytest.raises(KaarelBetError, match="closed"):
            await answer(inference, PROMPT, Sampling(max_tokens=1))

    run(work())


def test_a_model_that_cannot_be_had_is_said_to_every_asker(tmp_path: Path) -> None:
    inference = Inference(settings(tmp_path / "none"), max_adapters=1)
    with pytest.raises(ModelError, match="no such file"):
        run(answer(inference, PROMPT, Sampling(4)))
    inference.close()


def test_answers_in_bfloat16_leave_scores_in_float32(
    adapters: list[Path], tiny_model: Path, inference: Inference
) -> None:
    halved = settings(tiny_model, generation={"dtype": "bfloat16"})
    other = Inference(halved, max_adapters=1)
    other.load()
    assert other._opened is not None
    assert list(other._opened._loaded) == [torch.bfloat16]  # nothing else was asked for
    sampling = Sampling(max_tokens=10, temperature=0)

    async def work() -> None:
        for adapter in (None, adapters[0]):
            exact, *_ = await answer(inference, PROMPT, sampling, adapter)
            rounded, *_ = await answer(other, PROMPT, sampling, adapter)
            apart = abs(rounded.score.log_probability - exact.score.log_probability)
            assert 0 < apart < 0.1
            scores = [
                await each.prompt_log_probabilities(adapter, PROMPT) for each in (inference, other)
            ]
            assert scores[0] == scores[1]

    run(work())
    other.close()


def test_without_a_cache_answers_are_the_same(tiny_model: Path) -> None:
    """As architectures are run whose keys and values can't be kept."""
    cached = Inference(settings(tiny_model), max_adapters=1)
    plain = Inference(settings(tiny_model, prefix_sharing="off"), max_adapters=1)
    plain.load()
    assert plain._opened is not None
    decoder = plain._opened.decoder
    object.__setattr__(decoder, "engine", PlainEngine(decoder.model))

    async def work() -> None:
        for prompt, sampling in mixed(6):
            assert_same(
                await answer(plain, prompt, sampling), await answer(cached, prompt, sampling)
            )

    run(work())
    cached.close()
    plain.close()
