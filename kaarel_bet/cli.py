"""The command line: `kaarel-bet generate_data|train|test|report|run|jobs|serve`.

Whatever a user can cause ends in one line on stderr and exit code 2.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dotenv import load_dotenv
from rich.console import Console

import backends
from backends.errors import KaarelBetError, SettingsError
from kaarel_bet import experiments, jobs, serve
from kaarel_bet.generate_data import generate_data
from kaarel_bet.report import report
from kaarel_bet.session import DEFAULT_CONFIG, Session, open_session
from kaarel_bet.test import test
from kaarel_bet.train import train

_STEPS: dict[str, tuple[Callable[[Session], None], str]] = {
    "generate_data": (generate_data, "write the training sets and queries"),
    "train": (train, "fine-tune the arms"),
    "test": (test, "score the arms"),
    "report": (report, "decide the claims and write the report"),
    "run": (report, "all of these"),
}

_OTHERS = {
    "jobs": (jobs, "list, follow or cancel the fine-tuning jobs of the openai backend"),
    "serve": (serve, "fine-tune and answer for other programs, in OpenAI's wire format"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code. The last line printed is the run directory."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress is shown by us; libraries keep quiet
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, emoji=False)
    session: Session | None = None
    # A polite kill ends like Ctrl-C: what is done stays, and how to go on is said.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _load_environment(Path(".env"))
        if options.command in _OTHERS:
            module, _ = _OTHERS[options.command]
            module.run(options)
            return 0
        session = _open(options, console)
        step, _ = _STEPS[options.command]
        step(session)
        print(session.run.path, flush=True)
    except KaarelBetError as error:
        return _fail(console, str(error))
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one would only break the farewell
            signal.signal(number, signal.SIG_IGN)
        return _fail(console, _how_to_go_on(session))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(console, f"{place}{error.strerror or error}; {_how_to_go_on(session)}")
    return 0


def _load_environment(path: Path) -> None:
    try:
        load_dotenv(path)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _open(options: argparse.Namespace, console: Console) -> Session:
    return open_session(
        config=options.config,
        experiment=options.experiment,
        backend=options.backend,
        run_dir=options.run_dir,
        assignments=options.set,
        assume_yes=options.yes,
        console=console,
    )


def _how_to_go_on(session: Session | None) -> str:
    if session is None:
        return "stopped"
    if not session.run.exists:
        return "stopped; nothing was written"
    words = [*_run_command(), "--run-dir", str(session.run.path)]
    return f"stopped; go on with: {shlex.join(words)}"


def _run_command() -> list[str]:
    """How whoever started this command can run all steps."""
    if script := os.environ.get("KAAREL_BET_SCRIPT"):  # run_experiment.sh
        return [script]
    if "UV_RUN_RECURSION_DEPTH" in os.environ:  # `uv run`, whose environment need not be on PATH
        return ["uv", "run", "kaarel-bet", "run"]
    return [sys.executable, "-m", "kaarel_bet", "run"]


def _fail(console: Console, message: str) -> int:
    line = " ".join(message.split())
    console.print(f"kaarel-bet: {line}", markup=False, highlight=False, soft_wrap=True)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kaarel-bet",
        description="Fine-tune on X, test on Y, and settle the claim. Every step brings the steps "
        "before it up to date; what is finished is not done again.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    settings = _settings_flags()
    run = _run_flags()
    for name, (_, what) in _STEPS.items():
        parents = [settings, run]
        commands.add_parser(name, parents=parents, help=what, description=f"{name}: {what}.")
    for name, (module, what) in _OTHERS.items():
        module.add_arguments(
            commands.add_parser(name, parents=[settings], help=what, description=f"{name}: {what}.")
        )
    return parser


def _settings_flags() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"settings (default: {DEFAULT_CONFIG}, if there)",
    )
    flags.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key.path=value",
        help="override a setting; may be repeated",
    )
    return flags


def _run_flags() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument(
        "--experiment", metavar="NAME", help=f"one of: {', '.join(experiments.SETTINGS)}"
    )
    flags.add_argument("--backend", metavar="NAME", help=f"one of: {', '.join(backends.SETTINGS)}")
    flags.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="the run to go on with (default: the latest with these settings, else a new one)",
    )
    flags.add_argument("--yes", action="store_true", help="don't ask before spending money")
    return flags


if __name__ == "__main__":
    sys.exit(main())
