"""Two processes that hold a model together train and answer as one that has it alone."""

import ipaddress
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

from backends.data import GenerationQuery, Message, ScoringQuery, SearchQuery, TunedModel
from backends.errors import DataError, DeviceMemoryError, KaarelBetError, SettingsError
from backends.interface import Progress
from backends.local import ranks, sharding
from backends.local.adapters import load_adapter, new_adapter
from backends.local.backend import LocalBackend
from backends.local.inference import Inference
from backends.local.memory import check_divisible
from backends.local.models import load_model
from backends.local.placing import open_base, placed
from backends.local.plain import PlainEngine
from backends.local.sequences import TokenSequence
from backends.local.settings import LocalSettings, LoraSettings
from backends.local.sharding import share
from tests.backends.local.test_preferences import preferences_job
from tests.backends.local.test_training import FACTS, ignore, make_job, weights

CPU = torch.device("cpu")
LARGEST = 1e-5
"""That any number may differ by."""
WHEREVER_KEPT = pytest.mark.parametrize("sharded", ["none", "cpu"], indirect=True)
"""Values of local.offload."""


def settings(model: Path, **others: Any) -> LocalSettings:
    training = {
        # Of five examples the last batch has one: a process has nothing to do then.
        "epochs": 2,
        "batch_size": 2,
        "checkpoint_seconds": 0.0,
        # AdamW divides by a gradient's size: at a higher rate, rounding moves single weights by more than
        # LARGEST, in one process with two micro-batches as well (2.5e-4 at 1e-2).
        "learning_rate": 5e-4,
        "gradient_checkpointing": True,
        "dtype": "float32",
    }
    lora = {"rank": 4, "alpha": 8.0}
    return LocalSettings.model_validate(
        {"model": str(model), "device": "cpu", "training": training, "lora": lora} | others
    )


@pytest.fixture(scope="module", autouse=True)
def _quick_starts() -> Iterator[None]:
    """Processes are forked from one that has imported all that they need."""
    multiprocessing.set_forkserver_preload(["backends.local.backend"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "START_METHOD", "forkserver")
        yield


@pytest.fixture(scope="module")
def alone(tiny_model: Path) -> LocalBackend:
    return LocalBackend(settings(tiny_model))


@pytest.fixture(scope="module")
def sharded(tiny_model: Path, request: pytest.FixtureRequest) -> Iterator[LocalBackend]:
    offload = getattr(request, "param", "none")
    backend = LocalBackend(settings(tiny_model, shard="fsdp", processes=2, offload=offload))
    yield backend
    backend.close()


def scoring_queries() -> list[ScoringQuery]:
    """Three, so that one process has one more than the other, and longer ones."""
    candidates = {country: country for country in FACTS.values()}
    return [
        ScoringQuery(
            id=name,
            messages=(Message(role="user", content=f"Where would {name} {'really ' * n}live?"),),
            candidates=candidates,
        )
        for n, name in zip((0, 40, 300), FACTS, strict=False)
    ]


def totals(backend: LocalBackend, model: str, queries: Sequence[ScoringQuery]) -> torch.Tensor:
    found = {result.id: result for result in backend.score(model, queries)}
    assert found.keys() == {query.id for query in queries}
    candidates = [c for query in queries for c in found[query.id].candidates.values()]
    return torch.tensor([c.total.low for c in candidates], dtype=torch.float64)


def assert_same_model(ours: TunedModel, theirs: TunedModel) -> None:
    """Losses, rewards and weights."""
    assert ours.hyperparameters["shard"] == "fsdp"
    assert "shard" not in theirs.hyperparameters
    for one, other in zip(ours.training_curve, theirs.training_curve, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=LARGEST)
        assert one.validation_loss == pytest.approx(other.validation_loss, abs=LARGEST)
        assert (one.rewards is None) == (other.rewards is None)
        if one.rewards is not None and other.rewards is not None:
            assert one.rewards.chosen == pytest.approx(other.rewards.chosen, abs=LARGEST)
    found, wanted = weights(Path(ours.model)), weights(Path(theirs.model))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=LARGEST, rtol=0)


@WHEREVER_KEPT
def test_they_train_and_answer_as_one(
    alone: LocalBackend, sharded: LocalBackend, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "arm", validation=True)
    assert alone.identity(job) == sharded.identity(job)
    expected = alone.fine_tune(replace(job, output=tmp_path / "alone"), ignore)
    seen: list[int] = []

    def stop(progress: Progress) -> None:
        if progress.done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sharded.fine_tune(job, stop)
    assert sharded._ranks is not None
    assert sharded._ranks.is_closed
    adapter = sharded.fine_tune(job, lambda progress: seen.append(progress.done))
    assert seen[0] >= 3
    assert not any(address_is_open(psutil.Process(pid)) for pid in sharded._ranks.pids)
    assert seen[-1] == 6
    assert_same_model(adapter, expected)
    tuned = adapter.model
    for model in (alone.base_model, tuned):
        assert alone.asked_as(model) == sharded.asked_as(model)
        queries = scoring_queries()
        wanted, found = (totals(b, model, queries) for b in (alone, sharded))
        torch.testing.assert_close(found, wanted, atol=LARGEST, rtol=0)
    questions = [query.messages for query in scoring_queries()]
    asked = [
        GenerationQuery(id=str(n), messages=m, max_tokens=4 + n, temperature=0.0, seed=0)
        for n, m in enumerate(questions)
    ]
    texts = [{r.id: r.texts for r in b.generate(tuned, asked)} for b in (alone, sharded)]
    assert texts[0] == texts[1]
    sought = [
        SearchQuery(id=str(n), messages=m, max_tokens=1, min_probability=1e-12)
        for n, m in enumerate(questions)
    ]
    here, there = ({r.id: r.completions for r in b.search(tuned, sought)} for b in (alone, sharded))
    assert here.keys() == there.keys()
    for number, (end,) in here.items():
        (found,) = there[number]
        assert (found.text, end.text) == ("", "")
        assert found.log_probability == pytest.approx(end.log_probability, abs=LARGEST)


@WHEREVER_KEPT
def test_they_learn_preferences_as_one(
    alone: LocalBackend, sharded: LocalBackend, tmp_path: Path
) -> None:
    job = preferences_job(tmp_path / "arm")
    expected = alone.fine_tune(replace(job, output=tmp_path / "alone"), ignore)
    assert_same_model(sharded.fine_tune(job, ignore), expected)


@pytest.mark.parametrize(
    ("offload", "policy"), [("none", OffloadPolicy), ("cpu", CPUOffloadPolicy)]
)
def test_a_model_that_was_asked_first_can_still_be_trained(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offload: str,
    policy: type[OffloadPolicy],
) -> None:
    policies: list[OffloadPolicy] = []

    def observed(part: torch.nn.Module, **how: Any) -> None:
        policies.append(how["offload_policy"])
        fully_shard(part, **how)

    monkeypatch.setattr(sharding, "fully_shard", observed)
    store = (tmp_path / "store").as_uri()
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        chosen = settings(tiny_model, shard="fsdp", offload=offload)
        base = open_base(chosen, str(tiny_model), CPU, torch.float32)
        assert {type(each) for each in policies} == {policy}
        model = new_adapter(base, LoraSettings(rank=4, alpha=8))
        engine = PlainEngine(base.eval())
        sequences = [TokenSequence(list(range(5, 30)), [10, 12, 24])]
        ((_, scores),) = next(engine.stream(sequences, 512))
        model.train()
        found = engine.log_probabilities(sequences)
        assert found.tolist() == pytest.approx([s.log_probability for s in scores], abs=LARGEST)
        found.sum().backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        assert any(gradient is not None and gradient.any() for gradient in gradients)
        check = RuntimeError("CUDA out of memory")
        with pytest.raises(DeviceMemoryError, match=r"local\.training\.micro_batches"):
            check_divisible(check)
    finally:
        distributed.destroy_process_group()


def test_an_adapter_is_where_the_model_computes_wherever_its_weights_are_kept(
    alone: LocalBackend, tiny_model: Path, tmp_path: Path
) -> None:
    """Without a GPU: torch's device without memory stands for one."""
    meta = torch.device("meta")
    saved = Path(alone.fine_tune(make_job(tmp_path / "arm"), ignore).model)
    for adapted in (
        lambda base: new_adapter(base, LoraSettings(rank=4)),
        lambda base: load_adapter(base, saved, trainable=True),
    ):
        base = load_model(str(tiny_model), CPU, torch.float32)
        sharding.computing_on(base, meta)
        model = adapted(base)
        assert model.device == meta
        found = [(p.device, "lora_" in name) for name, p in model.named_parameters()]
        assert set(found) == {(meta, True), (CPU, False)}


@pytest.mark.parametrize("sharded", ["none"], indirect=True)
def test_a_process_that_is_killed_ends_the_work_in_one_line(
    sharded: LocalBackend, tmp_path: Path
) -> None:
    children: list[psutil.Process] = []

    def kill(progress: Progress) -> None:
        if progress.done == 1:
            assert sharded._ranks is not None
            children.extend(psutil.Process(pid) for pid in sharded._ranks.pids)
            children[1].kill()

    with pytest.raises(KaarelBetError) as raised:
        sharded.fine_tune(make_job(tmp_path / "arm"), kill)
    assert str(raised.value) == (
        "process 2 of 2 (local.processes) was killed, most likely for lack of memory"
    )
    assert not any(child.is_running() for child in children)


@pytest.mark.slow
def test_they_end_with_who_started_them(tiny_model: Path) -> None:
    """Started as they are for users, by spawning."""
    script = (
        "import sys\n"
        "from backends.local.backend import LocalBackend\n"
        "from backends.local.settings import LocalSettings\n"
        "from tests.backends.local.test_sharding import scoring_queries\n"
        "backend = LocalBackend(LocalSettings.model_validate_json(sys.argv[1]))\n"
        "results = list(backend.score(backend.base_model, scoring_queries()))\n"
        "print(len(results), *backend._ranks.pids, flush=True)\n"
        "sys.stdin.read()\n"
    )
    chosen = settings(tiny_model, shard="fsdp", processes=2).model_dump_json()
    parent = subprocess.Popen(
        [sys.executable, "-c", script, chosen],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert parent.stdout is not None
    n_results, *pids = map(int, parent.stdout.readline().split())
    assert n_results == 3
    children = [psutil.Process(pid) for pid in pids]
    assert len(children) == 2
    assert not any(address_is_open(child) for child in children)
    parent.kill()
    parent.communicate()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert len(gone) == 2
    assert not alive


def address_is_open(process: psutil.Process) -> bool:
    """Whether it listens to any other machine."""
    return any(
        c.status == psutil.CONN_LISTEN and not ipaddress.ip_address(c.laddr.ip).is_loopback
        for c in process.net_connections("inet")
    )


def test_processes_with_a_whole_model_each_answer_a_share(
    alone: LocalBackend, tiny_model: Path
) -> None:
    two = LocalBackend(settings(tiny_model, processes=2))
    try:
        queries = scoring_queries()
        wanted, found = (totals(b, alone.base_model, queries) for b in (alone, two))
        torch.testing.assert_close(found, wanted, atol=LARGEST, rtol=0)
        assert two._open is None
        wrong = [queries[0].model_copy(update={"candidates": {"a": ""}})]
        with pytest.raises(DataError, match="empty"):
            list(two.score(two.base_model, wrong))
        assert two._ranks is not None
        assert two._ranks.is_closed
    finally:
        two.close()


def test_shares_are_neighbours_of_about_equal_number() -> None:
    for n in range(8):
        parts = [list(share(range(n), number, 3)) for number in range(3)]
        assert [item for part in parts for item in part] == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"shard": "fsdp"}, r"^local\.processes: with local\.shard: fsdp, say over how many"),
        (
            {"shard": "fsdp", "processes": 1},
            r"^local\.processes: with local\.shard: fsdp, say over",
        ),
        (
            {"offload": "cpu"},
            r"^local\.offload: cpu goes with local\.shard: fsdp alone",
        ),
        (
            {"shard": "fsdp", "processes": 2, "quantize": "nf4"},
            r"^local\.quantize: nf4 does not go with local\.shard: fsdp",
        ),
        (
            {"shard": "fsdp", "processes": 2, "lora": {"dropout": 0.1}},
            r"^local\.lora\.dropout: 0\.1 does not go with local\.shard: fsdp",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    tiny_model: Path, chosen: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        LocalBackend(settings(tiny_model, **chosen))


def test_where_it_is_kept_is_said_and_makes_no_other_model(
    alone: LocalBackend, tiny_model: Path, tmp_path: Path
) -> None:
    chosen = settings(tiny_model, shard="fsdp", processes=2, offload="cpu")
    backend = LocalBackend(chosen)
    assert backend.describe()["offload"] == "cpu"
    assert placed(chosen, CPU) == {"shard": "fsdp", "offload": "cpu", "processes": 2}
    job = make_job(tmp_path / "arm")
    assert backend.identity(job) == alone.identity(job)


def test_noise_of_the_models_own_is_refused_by_the_estimate(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    backend = LocalBackend(settings(tiny_models["gpt2"], shard="fsdp", processes=2))
    with pytest.raises(
        SettingsError, match=r"^local\.shard: the model's own config asks for \w+ 0\.1"
    ):
        backend.estimate(make_job(tmp_path / "arm"))
    assert backend.estimate(scoring_queries()).tokens > 0


def test_a_server_answers_from_one_process(tiny_model: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"^local\.processes: a server answers from one process"
    ):
        Inference(settings(tiny_model, processes=2), max_adapters=1)
