"""The prefix engine side by side with what a user would pick instead, as ratios measured in one run.

    uv run python benchmarks/run.py [--only WORK] [--json FILE]

Every measurement is a process of its own; the peers' processes have an environment of their own where
they need more than is installed here, with the same versions of torch, transformers and peft.
Nothing else should be running.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobs import Job, LoadJob, Measured, TrainingJob
from peer_environment import peer_command
from works import COMPARISONS, GROWTHS, Comparison, Growth

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table. `ratio` is of what is wanted large; `target` None where none is set."""

    work: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    target: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--only", metavar="WORK", help="measure the works whose name has this in it"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there as well")
    arguments = parser.parse_args()
    works = [w for w in (*COMPARISONS, *GROWTHS) if (arguments.only or "") in w.name]
    if not works:
        names = ", ".join(f"'{w.name}'" for w in (*COMPARISONS, *GROWTHS))
        parser.error(f"--only: no work is named like '{arguments.only}'; there are {names}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        for work in works:
            for row in _measure(work, Path(directory)):
                rows.append(row)
                print(json.dumps(dataclasses.asdict(row)), flush=True)
    if arguments.json:
        arguments.json.write_text(
            json.dumps([dataclasses.asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8"
        )
    print(_table(rows))


def _measure(work: Comparison | Growth, directory: Path) -> Iterator[Row]:
    return _compared(work, directory) if isinstance(work, Comparison) else _grown(work, directory)


def _compared(work: Comparison, directory: Path) -> Iterator[Row]:
    job = work.job(directory)
    ours = _run([sys.executable, str(HERE / work.worker), *work.options], job)
    theirs = _run(_peer(work), job)
    yield _speed(work.name, work.peer.name, _rate(ours), _rate(theirs), _unit(job), work.target)
    yield _memory(work.name, work.peer.name, ours, theirs, work.memory_target)
    if ours.median_latency and theirs.median_latency:
        latencies = ours.median_latency, theirs.median_latency
        ratio = theirs.median_latency / ours.median_latency
        yield Row(f"median latency: {work.name}", work.peer.name, *latencies, "s", ratio, None)
    if ours.flops and ours.peak_flops:
        reached = ours.flops / ours.seconds / 1e9
        name = f"share of matmul peak: {work.name}"
        yield _speed(
            name, "torch, square products", reached, ours.peak_flops / 1e9, "GFLOP/s", None
        )
    if ours.log_likelihoods and theirs.log_likelihoods:
        pairs = zip(ours.log_likelihoods, theirs.log_likelihoods, strict=True)
        apart = max(abs(one - other) for one, other in pairs)
        print(f"largest difference between the two's log-likelihoods: {apart:.1e}", flush=True)


def _grown(work: Growth, directory: Path) -> Iterator[Row]:
    smallest: Measured | None = None
    for size in work.sizes:
        measured = _run([sys.executable, str(HERE / work.worker)], work.job(directory, size))
        if smallest is None:
            smallest = measured
            continue
        name, peer = f"{work.name}: {size:,}", f"itself at {work.sizes[0]:,}"
        yield _speed(name, peer, _rate(measured), _rate(smallest), work.unit, None)
        yield _memory(name, peer, measured, smallest, None)


def _speed(
    work: str, peer: str, ours: float, theirs: float, unit: str, target: float | None
) -> Row:
    return Row(work, peer, ours, theirs, unit, ours / theirs, target)


def _memory(work: str, peer: str, ours: Measured, theirs: Measured, target: float | None) -> Row:
    gigabytes = ours.peak_bytes / 1e9, theirs.peak_bytes / 1e9
    ratio = theirs.peak_bytes / ours.peak_bytes
    return Row(f"peak memory: {work}", peer, *gigabytes, "GB", ratio, target)


def _unit(job: Job) -> str:
    if isinstance(job, TrainingJob):
        return "examples/s"
    if isinstance(job, LoadJob):
        return "requests/s" if job.max_tokens == 1 else "tokens/s"
    return "queries/s"


def _rate(measured: Measured) -> float:
    return measured.count / measured.seconds


def _peer(work: Comparison) -> list[str]:
    return [*peer_command(work.peer.script, work.peer.packages), *work.peer.options]


def _run(command: list[str], job: Job) -> Measured:
    words = [*command, json.dumps(dataclasses.asdict(job))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return Measured(**json.loads(done.stdout.strip().rsplit("\n", 1)[-1]))


def _table(rows: list[Row]) -> str:
    """The rows in Markdown, as docs/prefix-engine.md has them."""
    lines = [
        "| work | peer | ours | theirs | unit | ratio | to reach |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = "" if row.target is None else f"{row.target:g}"
        numbers = f"{row.ours:,.2f} | {row.theirs:,.2f} | {row.unit} | {row.ratio:.2f} | {target}"
        lines.append(f"| {row.work} | {row.peer} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
