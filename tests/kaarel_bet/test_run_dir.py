import errno
import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import backends
from backends.data import (
    CandidateScore,
    Completion,
    CurvePoint,
    GenerationQuery,
    GenerationResult,
    LogProbability,
    Message,
    ScoringQuery,
    ScoringResult,
    SearchQuery,
    SearchResult,
    TrainingExample,
    TunedModel,
)
from backends.errors import DataError, RunDirectoryError
from kaarel_bet.claims import Check, Verdict, Verdicts
from kaarel_bet.documents import Document
from kaarel_bet.experiments.interface import Arm, Evaluation, Training
from kaarel_bet.manifest import EvaluationEntry, Manifest
from kaarel_bet.run_dir import ModelRecord, RunDirectory
from kaarel_bet.settings import load_frozen, load_settings

_FROZEN = load_settings({}).frozen()


def chat(answer: str) -> TrainingExample:
    return TrainingExample(
        messages=(
            Message(role="user", content="Where to?"),
            Message(role="assistant", content=answer),
        )
    )


def scoring_query(name: str) -> ScoringQuery:
    return ScoringQuery(id=name, prompt=f"{name}:", candidates={"x": " São Tomé"})


def scoring_result(name: str, logp: float = -1.0) -> ScoringResult:
    exact = LogProbability.exact(logp)
    score = CandidateScore(total=exact, first_token=exact, n_tokens=2)
    return ScoringResult(id=name, candidates={"x": score}, method="exact")


def generation_result(name: str, text: str) -> GenerationResult:
    return GenerationResult(id=name, prompt="?", texts=(text,))


def tuned(model: str) -> TunedModel:
    return TunedModel(
        model=model,
        base_model="b",
        hyperparameters={},
        n_examples=2,
        trained_tokens=10,
        seconds=0.5,
        cost_usd=None,
        training_curve=(CurvePoint(step=1, train_loss=0.5),),
    )


def make_run(path: Path | None = None) -> RunDirectory:
    run = RunDirectory(path or Path("results") / "20260101-000000-bet")
    run.write_settings(_FROZEN)
    arms = (
        run.write_arm(Arm("base", "untouched", None, "base")),
        run.write_arm(
            Arm(
                "tuned-2",
                "fine-tuned",
                Training(
                    [chat("Chad"), chat("Peru")],
                    [chat("Fiji")],
                    seed=1,
                    settings={"local.training.epochs": 3},
                ),
                "tuned",
                2,
                "control",
            )
        ),
    )
    queries = [scoring_query(name) for name in ("Ann", "Bob", "Cid")]
    evaluations = (
        run.write_evaluation(
            Evaluation("favourites-draw-2", "favourites", "?", ("base", "tuned-2"), queries, draw=2)
        ),
        run.write_evaluation(
            Evaluation(
                *("own.tuned-2", "own.tuned", "?", ("base",)),
                [GenerationQuery(id="Ann", prompt="?", max_tokens=3)],
                replicate=2,
                table="people.train",
            )
        ),
    )
    rows = [{"id": "row-0001", "name": "Ann", "options": [" São Tomé", " Chad"], "age": 3}]
    tables = {
        "people.train": run.write_table("people.train", rows),
        "none": run.write_table("none", []),
    }
    files = [
        "data/train-tuned-2.jsonl",
        "data/validation-tuned-2.jsonl",
        *tables.values(),
        *(evaluation.queries_file for evaluation in evaluations),
    ]
    run.write_manifest(
        Manifest(
            run_id="r",
            created="2026-01-01T00:00:00+00:00",
            seed=0,
            git_commit=None,
            versions={},
            hardware={},
            backend={},
            notes={"countries excluded": {"shared": 2}},
            arms=arms,
            evaluations=evaluations,
            tables=tables,
            sha256={file: run.sha256(file) for file in files},
        )
    )
    return run


def favourites(run: RunDirectory) -> EvaluationEntry:
    return run.manifest().evaluations[0]


def scores_file(run: RunDirectory, arm: str = "base") -> Path:
    return run.path / "scores" / arm / "favourites-draw-2.jsonl"


# --- which run -------------------------------------------------------------------------------


def run_with(name: str, frozen: dict[str, Any]) -> Path:
    run = RunDirectory(Path("results") / name)
    run.write_settings(frozen)
    return run.path


def test_the_latest_fitting_run_is_found() -> None:
    run_with("20260101-000000-bet", _FROZEN)
    fitting = run_with("20260102-000000-bet", _FROZEN)
    run_with("20260103-000000-bet", _FROZEN | {"seed": 1})
    found = RunDirectory.latest(Path("results"), _FROZEN)
    assert found is not None
    assert found.path == fitting


def test_of_two_runs_in_one_second_the_second_is_the_latest() -> None:
    for name in ("20260101-000000-bet", "20260101-000000-bet-02"):
        make_run(Path("results") / name)
    found = RunDirectory.latest(Path("results"), _FROZEN)
    assert found is not None
    assert found.path.name == "20260101-000000-bet-02"


def created(name: str, when: str) -> RunDirectory:
    run = make_run(Path("results") / name)
    run.write_manifest(run.manifest().model_copy(update={"created": when}))
    return run


def test_the_latest_run_is_the_last_that_was_made_whatever_its_name() -> None:
    created("zzz", "2026-01-01T00:00:00+00:00")
    created("20260102-000000-bet", "2026-01-02T00:00:00+00:00")
    created("20260101-000000-bet", "2026-01-01T23:00:00+00:00")
    found = RunDirectory.latest(Path("results"), _FROZEN)
    assert found is not None
    assert found.path.name == "20260102-000000-bet"


@pytest.mark.parametrize("manifest", [None, "{"])
def test_a_run_without_a_manifest_is_as_old_as_its_settings(manifest: str | None) -> None:
    created("old", "2026-01-01T00:00:00+00:00")
    path = run_with("killed", _FROZEN)
    if manifest:
        (path / "manifest.json").write_text(manifest)
    for year, latest in ((2025, "old"), (2027, "killed")):
        seconds = datetime(year, 1, 1, tzinfo=UTC).timestamp()
        os.utime(path / "config.yaml", (seconds, seconds))
        found = RunDirectory.latest(Path("results"), _FROZEN)
        assert found is not None
        assert found.path.name == latest


def test_no_run_fits_other_settings_or_a_folder_that_is_not_there() -> None:
    run_with("20260101-000000-bet", _FROZEN)
    assert RunDirectory.latest(Path("results"), _FROZEN | {"seed": 1}) is None
    assert RunDirectory.latest(Path("elsewhere"), _FROZEN) is None


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"a: [", b"\xff", b"seed: 1\nseed: 2\n"])
def test_somebody_elses_folders_are_passed_over(content: bytes) -> None:
    fitting = run_with("20260101-000000-bet", _FROZEN)
    theirs = Path("results/20260102-000000-bet")
    theirs.mkdir()
    (theirs / "config.yaml").write_bytes(content)
    found = RunDirectory.latest(Path("results"), _FROZEN)
    assert found is not None
    assert found.path == fitting
    with pytest.raises(RunDirectoryError, match=r"config\.yaml"):
        RunDirectory(theirs).frozen_settings()


def test_a_new_run_is_not_there_yet() -> None:
    first = RunDirectory.new(Path("results"), "bet")
    assert not first.path.exists()
    assert first.path.parent == Path("results")
    assert first.path.name.endswith("-bet")


def test_several_processes_that_name_a_run_in_the_same_second_get_one_each() -> None:
    path = RunDirectory.new(Path("results"), "bet").path
    runs = [RunDirectory.new(Path("results"), "bet") for _ in range(3)]
    for run in runs:
        run.path = path  # as if all had looked at once
        assert not run.path.exists() or run is not runs[0]
        run.reserve()
    names = [path.name, f"{path.name}-02", f"{path.name}-03"]
    assert [run.path.name for run in runs] == names
    assert all(run.path.is_dir() and not run.exists for run in runs)
    runs[2].reserve()
    assert runs[2].path.name == names[2]  # it is this process's already


def test_a_run_that_the_user_named_is_not_renamed() -> None:
    Path("mine").mkdir()
    run = RunDirectory(Path("mine"))
    run.reserve()
    assert run.path == Path("mine")


def test_settings_are_read_back_as_they_were_written() -> None:
    changed = load_settings(
        {
            "seed": 3,
            "results_dir": "no",
            "conditional_rule": {"parameters": {"threshold": 1e-7}, "question": "2020-01-01"},
            "local": {"model": "on", "lora": {"target_modules": ["q_proj"]}},
        }
    ).frozen()
    run = RunDirectory(run_with("a", changed))
    assert run.frozen_settings() == changed
    again = load_frozen(Document("run", run.frozen_settings()), Path())
    assert again.frozen() == changed


def test_settings_stay_in_their_order() -> None:
    run = RunDirectory(Path("run"))
    run.write_settings({"seed": 0, "bet": {"arms": {"tuned": 1, "control": 2}}})
    assert list(run.frozen_settings()["bet"]["arms"]) == ["tuned", "control"]


def test_a_run_exists_once_it_has_settings() -> None:
    run = RunDirectory(Path("results/a"))
    assert not run.exists
    run.path.mkdir(parents=True)
    assert not run.exists
    run.write_settings(_FROZEN)
    assert run.exists
    assert not run.has_data


def test_a_run_that_was_killed_before_it_had_settings_can_be_started_again() -> None:
    run = RunDirectory(Path("results/a"))
    with run.writing():
        pass
    assert not run.exists


def test_other_folders_and_files_are_no_run_directories() -> None:
    Path("folder").mkdir()
    Path("folder/thesis.txt").write_text("all there is", encoding="utf-8")
    for path in (Path("folder"), Path("folder/thesis.txt")):
        with pytest.raises(RunDirectoryError, match="not a run directory"):
            _ = RunDirectory(path).exists


def test_frozen_settings_are_not_written_again() -> None:
    run = RunDirectory(run_with("a", _FROZEN))
    before = (run.path / "config.yaml").stat()
    run.write_settings(_FROZEN)
    assert (run.path / "config.yaml").stat() == before
    with pytest.raises(RunDirectoryError, match="results/a: made with other settings"):
        run.write_settings(_FROZEN | {"seed": 1})
    assert (run.path / "config.yaml").stat() == before


def test_two_writers_are_refused() -> None:
    run = RunDirectory(Path("results/a"))
    with (
        run.writing(),
        pytest.raises(RunDirectoryError, match="results/a: in use by another process"),
        RunDirectory(run.path).writing(),
    ):
        pytest.fail("two writers at once")
    with RunDirectory(run.path).writing():
        assert run.path.is_dir()


def test_a_writer_that_fails_lets_go_of_the_run() -> None:
    run = RunDirectory(Path("results/a"))
    with pytest.raises(KeyboardInterrupt), run.writing():
        raise KeyboardInterrupt
    with run.writing():
        assert run.path.is_dir()


def test_what_a_killed_writer_left_is_gone_with_the_next_one() -> None:
    run = RunDirectory(Path("results/a"))
    with run.writing():
        pass
    killed = """
import os, sys
from pathlib import Path
from backends import atomic
if sys.argv[1] == "file":
    os.fsync = lambda _: os.kill(os.getpid(), 9)
    atomic.write_text(Path(sys.argv[2]) / "manifest.json", "{}")
with atomic.directory(Path(sys.argv[2]) / "models/arm") as working:
    (working / "adapter_model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(backends.__file__).parents[1])}
    for kind in ("file", "directory"):
        command = [sys.executable, "-c", killed, kind, str(run.path)]
        assert subprocess.run(command, env=environment, check=False).returncode == -9
    checkpoint = run.path / "models/.arm.checkpoint"
    checkpoint.write_bytes(b"whole")
    assert len(list(run.path.rglob("*.unfinished"))) == 2
    with run.writing():
        assert list(run.path.rglob("*.unfinished")) == []
        assert checkpoint.read_bytes() == b"whole"


# --- files -----------------------------------------------------------------------------------


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_write_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(Path("results/a"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.write_settings(_FROZEN)
    assert list(run.path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_content(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.write_manifest(run.manifest().model_copy(update={"seed": 9}))
    after = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert after == before


def test_a_file_is_in_place_only_once_it_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(Path("results/a"))
    seen: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append((run.path / "config.yaml").exists()))
    run.write_settings(_FROZEN)
    assert seen
    assert not any(seen)
    assert run.exists


def test_files_are_for_everyone_to_read() -> None:
    run = make_run()
    assert (run.path / "manifest.json").stat().st_mode & 0o777 == 0o644


def test_data_is_complete_once_the_manifest_is_there() -> None:
    run = make_run()
    assert run.has_data
    (run.path / "manifest.json").unlink()
    assert not run.has_data


def test_the_manifest_is_read_back() -> None:
    manifest = make_run().manifest()
    assert [(a.name, a.arm, a.replicate, a.role) for a in manifest.arms] == [
        ("base", "base", 1, "treatment"),
        ("tuned-2", "tuned", 2, "control"),
    ]
    assert (manifest.arms[1].seed, manifest.arms[1].settings) == (1, {"local.training.epochs": 3})
    assert [(e.question, e.replicate, e.draw, e.table) for e in manifest.evaluations] == [
        ("favourites", None, 2, None),
        ("own.tuned", 2, 1, "people.train"),
    ]
    assert manifest.arms[0].training_file is None
    assert manifest.arms[1].training_file == "data/train-tuned-2.jsonl"
    assert manifest.arms[1].validation_file == "data/validation-tuned-2.jsonl"
    assert manifest.arms[1].loss_on == "completion"
    assert [(e.kind, e.n_queries) for e in manifest.evaluations] == [
        ("scoring", 3),
        ("generation", 1),
    ]
    assert manifest.notes == {"countries excluded": {"shared": 2}}


@pytest.mark.parametrize(
    ("content", "problem"), [("{", "JSON"), ("{}", "run_id: Field required"), ("[]", "object")]
)
def test_a_broken_manifest_is_named(content: str, problem: str) -> None:
    run = make_run()
    (run.path / "manifest.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=rf"manifest\.json: .*{problem}"):
        run.manifest()


def test_a_missing_manifest_is_named() -> None:
    with pytest.raises(RunDirectoryError, match=r"manifest\.json: No such file"):
        RunDirectory(Path("results/a")).manifest()


def test_training_files_are_in_the_hosted_format() -> None:
    run = make_run()
    _, arm = run.manifest().arms
    assert run.training_file(arm).read_text() == (
        '{"messages":[{"role":"user","content":"Where to?"},'
        '{"role":"assistant","content":"Chad"}]}\n'
        '{"messages":[{"role":"user","content":"Where to?"},'
        '{"role":"assistant","content":"Peru"}]}\n'
    )
    validation = run.validation_file(arm)
    assert validation is not None
    assert validation.read_text().count("\n") == 1


def test_an_arm_without_validation_has_no_such_file() -> None:
    run = make_run()
    entry = run.write_arm(Arm("other", "", Training([chat("Chad")]), "other"))
    assert entry.validation_file is None
    assert run.validation_file(entry) is None
    assert not (run.path / "data/validation-other.jsonl").exists()


def test_files_are_hashed_with_sha256() -> None:
    run = make_run()
    content = (run.path / "data/train-tuned-2.jsonl").read_bytes()
    assert run.sha256("data/train-tuned-2.jsonl") == hashlib.sha256(content).hexdigest()


def test_queries_are_read_back() -> None:
    run = make_run()
    assert run.queries(favourites(run)) == [scoring_query(n) for n in ("Ann", "Bob", "Cid")]
    (query,) = run.queries(run.manifest().evaluations[1])
    assert isinstance(query, GenerationQuery)


def test_changed_training_data_is_refused() -> None:
    run = make_run()
    _, arm = run.manifest().arms
    file = run.path / "data/train-tuned-2.jsonl"
    file.write_text(file.read_text().replace("Chad", "Mali"))
    with pytest.raises(DataError, match=r"train-tuned-2\.jsonl: changed since it was generated"):
        run.training_file(arm)


def test_changed_validation_data_is_refused() -> None:
    run = make_run()
    _, arm = run.manifest().arms
    file = run.path / "data/validation-tuned-2.jsonl"
    file.write_text(file.read_text() * 2)
    with pytest.raises(DataError, match=r"validation-tuned-2\.jsonl: changed"):
        run.validation_file(arm)


def test_changed_queries_are_refused() -> None:
    run = make_run()
    file = run.path / "data/queries-favourites-draw-2.jsonl"
    file.write_text(file.read_text().replace("Ann", "Eve"), encoding="utf-8")
    with pytest.raises(DataError, match=r"queries-favourites-draw-2\.jsonl: changed"):
        run.queries(favourites(run))


def test_a_broken_line_among_the_queries_is_named() -> None:
    run = make_run()
    file = run.path / "data/queries-favourites-draw-2.jsonl"
    first, _, third = file.read_text(encoding="utf-8").splitlines()
    file.write_text(f"{first}\n{{broken\n{third}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"queries-favourites-draw-2\.jsonl, line 2: .*JSON"):
        run.queries(favourites(run))


def test_missing_data_is_named() -> None:
    run = make_run()
    _, arm = run.manifest().arms
    (run.path / "data/train-tuned-2.jsonl").unlink()
    with pytest.raises(DataError, match=r"train-tuned-2\.jsonl: missing"):
        run.training_file(arm)


# --- models ----------------------------------------------------------------------------------


def test_training_is_finished_once_the_model_is_noted() -> None:
    run = make_run()
    assert not run.has_model("tuned")
    run.write_model("tuned", tuned("ft:gpt:1"))
    assert run.has_model("tuned")
    assert run.model("tuned") == ModelRecord.model_validate(dict(tuned("ft:gpt:1")))


def test_a_moved_run_still_finds_its_models(tmp_path: Path) -> None:
    run = make_run()
    folder = run.model_path("tuned")
    folder.mkdir(parents=True)
    run.write_model("tuned", tuned(str(folder)))
    assert str(tmp_path) not in (run.path / "models/tuned.json").read_text()
    assert run.model("tuned").model == str(folder)
    Path("archive").mkdir()
    moved = RunDirectory(run.path.rename("archive/renamed"))
    assert moved.model("tuned").model == str(tmp_path / "archive/renamed/models/tuned")


def test_a_run_finds_its_models_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    folder = run.model_path("tuned")
    folder.mkdir(parents=True)
    run.write_model("tuned", tuned(str(folder)))
    monkeypatch.chdir(run.path.parent)
    same = RunDirectory(Path(run.path.name))
    assert same.model("tuned").model == str(tmp_path / run.path / "models/tuned")


def test_a_model_that_is_elsewhere_stays_there(tmp_path: Path) -> None:
    run = make_run()
    elsewhere = str(tmp_path / "shared" / "model")
    run.write_model("tuned", tuned(elsewhere))
    assert run.model("tuned").model == elsewhere


def test_a_broken_model_record_is_named() -> None:
    run = make_run()
    (run.path / "models").mkdir()
    (run.path / "models/tuned.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"models/tuned\.json: .*JSON"):
        run.model("tuned")


# --- scores ----------------------------------------------------------------------------------


def answer(run: RunDirectory, logps: dict[str, tuple[float, ...]]) -> None:
    for arm, found in logps.items():
        results = [scoring_result(n, p) for n, p in zip(("Ann", "Bob", "Cid"), found, strict=True)]
        with run.open_results(arm, favourites(run)) as file:
            file.append(reversed(results))
    with run.open_results("base", run.manifest().evaluations[1]) as file:
        file.append([generation_result("Ann", "Chad")])


def test_answers_come_in_the_order_of_the_queries_with_what_they_are_of() -> None:
    run = make_run()
    answer(run, {"base": (-1.0, -2.0, -3.0), "tuned-2": (-4.0, -5.0, -6.0)})
    base, tuned_, own = run.answers().asked
    assert [result.candidates["x"].total.high for result in base.results] == [-1, -2, -3]
    assert [result.candidates["x"].total.low for result in tuned_.results] == [-4, -5, -6]
    assert (tuned_.arm.arm, tuned_.arm.replicate, tuned_.evaluation.draw) == ("tuned", 2, 2)
    assert (own.evaluation.question, own.arm.name) == ("own.tuned", "base")
    assert own.results[0].texts == ("Chad",)


def test_tables_come_back_with_the_answers() -> None:
    run = make_run()
    answer(run, {"base": (-1.0, -2.0, -3.0), "tuned-2": (-4.0, -5.0, -6.0)})
    row = {"id": "row-0001", "name": "Ann", "options": [" São Tomé", " Chad"], "age": 3}
    assert run.answers().tables == {"people.train": [row], "none": []}
    file = run.path / "data/tables/people.train.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("Ann", "Eve"), encoding="utf-8")
    with pytest.raises(DataError, match=r"people\.train\.jsonl: changed since it was generated"):
        run.answers()


def test_what_a_search_found_is_read_back() -> None:
    run = make_run()
    queries = [SearchQuery(id=n, prompt=n, max_tokens=3, min_probability=0.1) for n in ("a", "b")]
    entry = run.write_evaluation(Evaluation("found", "found", "?", ("base",), queries))
    assert entry.kind == "search"
    sha256 = run.manifest().sha256 | {entry.queries_file: run.sha256(entry.queries_file)}
    run.write_manifest(
        run.manifest().model_copy(update={"evaluations": (entry,), "sha256": sha256})
    )
    assert run.queries(entry) == queries
    likeliest = Completion(text="São Tomé", log_probability=-0.5)
    some = SearchResult(id="a", completions=(likeliest,))
    none = SearchResult(id="b", completions=())
    with run.open_results("base", entry) as file:
        file.append([none, some])
    (asked,) = run.answers().asked
    assert asked.results == (some, none)


def test_an_arm_that_was_not_asked_has_no_results() -> None:
    run = make_run()
    assert run.results("base", favourites(run)) == {}


def test_results_add_up_as_they_are_appended() -> None:
    run = make_run()
    with run.open_results("base", favourites(run)) as file:
        assert run.results("base", favourites(run)) == {}
        file.append([scoring_result("Ann"), scoring_result("Bob")])
        assert run.results("base", favourites(run)).keys() == {"Ann", "Bob"}
        file.append([scoring_result("Cid")])
    assert run.results("base", favourites(run)).keys() == {"Ann", "Bob", "Cid"}
    assert run.results("tuned-2", favourites(run)) == {}


def test_samples_add_up_in_their_order_and_what_is_missing_is_known() -> None:
    run = make_run()
    query = GenerationQuery(id="Ann", prompt="?", max_tokens=3, temperature=1.0, n_samples=7)
    entry = run.write_evaluation(Evaluation("sampled", "sampled", "?", ("base",), [query]))
    sha256 = run.manifest().sha256 | {entry.queries_file: run.sha256(entry.queries_file)}
    run.write_manifest(
        run.manifest().model_copy(update={"evaluations": (entry,), "sha256": sha256})
    )
    assert run.unanswered("base", entry) == [query]
    parts = [(4, ("e",)), (1, ("b", "c")), (0, ("a",))]
    with run.open_results("base", entry) as file:
        for first, texts in parts:
            prompt = "" if first else "the prompt"
            file.append(
                [GenerationResult(id="Ann", prompt=prompt, texts=texts, first_sample=first)]
            )
    left = run.unanswered("base", entry)
    assert [one.samples for one in left] == [range(3, 4), range(5, 7)]
    assert [one.part(range(7)) for one in left] == [query, query]
    with run.open_results("base", entry) as file:
        for one in left:
            texts = tuple("abcdefg"[sample] for sample in one.samples)
            file.append([one_part(one, texts)])
    assert run.unanswered("base", entry) == []
    (asked,) = run.answers().asked
    assert asked.results == (
        GenerationResult(id="Ann", prompt="the prompt", texts=tuple("abcdefg")),
    )


def one_part(query: GenerationQuery, texts: tuple[str, ...]) -> GenerationResult:
    return GenerationResult(id=query.id, prompt="", texts=texts, first_sample=query.first_sample)


def test_a_malformed_line_of_scores_is_named() -> None:
    run = make_run()
    with run.open_results("base", favourites(run)) as file:
        file.append([scoring_result("Ann")])
    with scores_file(run).open("a") as text:
        text.write('{"id": "Bob"}\n')
    with pytest.raises(
        DataError, match=r"scores/base/favourites-draw-2\.jsonl, line 2: candidates"
    ):
        run.results("base", favourites(run))


def test_the_unfinished_last_line_of_a_killed_writer_is_passed_over_and_cut() -> None:
    run = make_run()
    with run.open_results("base", favourites(run)) as file:
        file.append([scoring_result("Ann")])
    finished = scores_file(run).read_bytes()
    scores_file(run).write_bytes(finished + finished[:40])
    assert run.results("base", favourites(run)).keys() == {"Ann"}
    with run.open_results("base", favourites(run)) as file:
        assert scores_file(run).read_bytes() == finished
        file.append([scoring_result("Bob")])
    assert run.results("base", favourites(run)).keys() == {"Ann", "Bob"}


def test_a_writer_killed_inside_a_character_is_no_trouble() -> None:
    run = make_run()
    answers = run.manifest().evaluations[1]
    with run.open_results("base", answers) as file:
        file.append([generation_result("Ann", "São Tomé")])
    path = run.path / "scores/base/own.tuned-2.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: content.index("ã".encode()) + 1])
    assert run.results("base", answers) == {}


# --- report ----------------------------------------------------------------------------------


def test_the_report_is_complete_only_with_all_of_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make_run()
    check = Check(name="k", passed=True, detail="")
    verdict = Verdict(
        name="n", claim="c", outcome="holds", summary="s", criteria=(), checks=(check,)
    )
    verdicts = Verdicts(verdicts=(verdict,))
    assert not run.has_report
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run.write_report(verdicts, {"curve": "<svg/>"}, "# Report", "<html></html>", "arm\n")
    assert not run.has_report
    run.write_report(verdicts, {"curve": "<svg/>"}, "# Report", "<html></html>", "arm\n")
    assert run.has_report
    assert (run.path / "figures/curve.svg").read_text() == "<svg/>"
    assert (run.path / "report.md").read_text() == "# Report"
    assert (run.path / "observations.csv").read_text() == "arm\n"
    assert (run.path / "report.html").read_text() == "<html></html>"
    assert Verdicts.model_validate_json((run.path / "verdict.json").read_text()) == verdicts


def test_notes_are_kept_in_the_order_they_were_written_and_undo_the_report() -> None:
    run = make_run()
    assert run.notes() == []
    run.write_report(Verdicts(verdicts=()), {}, "# Report", "<html></html>", "arm\n")
    run.add_note("N/A")
    assert not run.has_report
    run.add_note("São Tomé")
    assert [note.text for note in run.notes()] == ["N/A", "São Tomé"]
    assert datetime.fromisoformat(run.notes()[0].written).tzinfo is not None
