"""The command line: `kaarel-bet new|check|run|sweep|note|bets|jobs|serve`, and each step of a run alone.

Whatever a user can cause ends in one line on stderr and exit code 2.
"""

import argparse
import io
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from dotenv import load_dotenv
from rich.console import Console

import backends
from backends.errors import KaarelBetError, RunDirectoryError, SettingsError
from kaarel_bet import jobs, new, serve
from kaarel_bet.bet.source import shipped
from kaarel_bet.generate_data import generate_data
from kaarel_bet.judge import judge
from kaarel_bet.report import report
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import DEFAULT_CONFIG, Session, open_session, settings_of_files
from kaarel_bet.sweep import sweep
from kaarel_bet.test import test
from kaarel_bet.train import train


def check(session: Session) -> None:
    """Imported late."""
    from kaarel_bet.check import check

    check(session)


_AddArguments = Callable[[argparse.ArgumentParser], None]
_STEPS: dict[str, tuple[Callable[[Session], None], str]] = {
    "check": (
        check,
        "show what the models would see, what it takes and every mistake; write nothing",
    ),
    "generate_data": (generate_data, "write the training sets and queries"),
    "train": (train, "fine-tune the arms"),
    "test": (test, "ask the arms"),
    "judge": (judge, "have the answers judged, where a bet has judges"),
    "report": (report, "decide the claims and write the report"),
    "run": (report, "all of these"),
}

_OTHERS: dict[str, tuple[_AddArguments, Callable[[argparse.Namespace], None], str]] = {
    "bets": (new.add_no_arguments, new.list_bets, "list the bets that come with the package"),
    "new": (new.add_arguments, new.new, "write the start of a bet of your own"),
    "jobs": (
        jobs.add_arguments,
        jobs.run,
        "list, follow or cancel the fine-tuning jobs of the openai backend",
    ),
    "serve": (
        serve.add_arguments,
        serve.run,
        "fine-tune and answer for other programs, in OpenAI's wire format",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code. The last line printed is the run directory."""
    if arguments is None:
        _in_utf8_mode()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # letters that the terminal lacks
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress is shown by us; libraries keep quiet
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, emoji=False)
    session: Session | None = None
    # A polite kill ends like Ctrl-C: what is done stays, and how to go on is said.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _load_environment(Path(".env"))
        if options.command in _OTHERS:
            _, command, _ = _OTHERS[options.command]
            command(options)
            return 0
        if options.command == "sweep":
            session = sweep(partial(_open, options, console))
            print(session.run.path, flush=True)
            return 0
        session = _open(options, console)
        step = partial(_note, text=options.text) if options.command == "note" else None
        step = step or _STEPS[options.command][0]
        step(session)
        if options.command != "check":
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


def run_script(command: str) -> int:
    """`python kaarel_bet/train.py ...` and its like: the command with the words after the file's name."""
    _in_utf8_mode()
    return main([command, *sys.argv[1:]])


def _in_utf8_mode() -> None:
    """Starts this program anew where Python was told to take names of files for ASCII.

    It would read any other letter as half a surrogate pair, which no file of ours can hold.
    """
    if sys.getfilesystemencoding() == "ascii":
        os.environ["PYTHONUTF8"] = "1"  # of processes that this one starts as well
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _load_environment(path: Path) -> None:
    try:
        load_dotenv(path)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start})") from error


def _open(options: argparse.Namespace, console: Console, further: Sequence[str] = ()) -> Session:
    if options.bet and options.experiment not in (None, options.bet):
        raise SettingsError(f"{options.bet} and --experiment {options.experiment}: name one bet")
    experiment, run_dir = options.bet or options.experiment, options.run_dir
    if options.command == "note" and not experiment and run_dir is None:
        general = settings_of_files(options.config, options.set).general
        latest = RunDirectory.latest(Path(general.results_dir))  # the one that was just looked at
        run_dir = latest.path if latest else None
    return open_session(
        config=options.config,
        experiment=experiment,
        backend=options.backend,
        run_dir=run_dir,
        assignments=[*options.set, *further],
        assume_yes=options.yes,
        console=console,
    )


def _note(session: Session, text: str) -> None:
    """Writes a note down, and the report anew if there is one."""
    run = session.run
    if not text.strip():
        raise SettingsError("note: says nothing; write it as `note TEXT`")
    if not run.has_data:
        raise RunDirectoryError(
            f"{run.path}: no such run to note anything about; --run-dir names one"
        )
    had_report = run.has_report
    with run.writing():
        run.add_note(text)
    if had_report:
        report(session)


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
    parents = [settings, _run_flags()]
    text = argparse.ArgumentParser(add_help=False)
    text.add_argument("text", metavar="TEXT", help="what the report shows beside the verdict")
    for name, (_, what) in _STEPS.items():
        commands.add_parser(name, parents=parents, help=what, description=f"{name}: {what}.")
    what = "say something about a run, to stand beside its verdict"
    commands.add_parser("note", parents=[text, *parents], help=what, description=f"note: {what}.")
    what = "run the bet at every combination of its sweep's settings, and decide on the best"
    commands.add_parser("sweep", parents=parents, help=what, description=f"sweep: {what}.")
    for name, (add_arguments, _, what) in _OTHERS.items():
        own = [] if name in ("bets", "new") else [settings]
        add_arguments(
            commands.add_parser(name, parents=own, help=what, description=f"{name}: {what}.")
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
        "bet",
        nargs="?",
        metavar="NAME|FILE",
        help=f"the bet: a .yaml file, or one of: {', '.join(shipped())}",
    )
    flags.add_argument("--experiment", metavar="NAME|FILE", help="the same")
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
