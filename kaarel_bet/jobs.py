"""`kaarel-bet jobs`: lists, follows and cancels fine-tuning jobs at the OpenAI backend's service."""

import argparse
import time
from typing import TYPE_CHECKING

from rich.console import Console

from backends.errors import ServiceError, SettingsError
from backends.openai_api.settings import OpenAISettings
from kaarel_bet.progress import progress
from kaarel_bet.session import settings_of_files
from kaarel_bet.train import in_words

if TYPE_CHECKING:
    from backends.openai_api.jobs import Jobs

_LISTED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command alone."""
    parser.add_argument("action", nargs="?", choices=("list", "follow", "cancel"), default="list")
    parser.add_argument("job", nargs="?", metavar="ID", help="which one to follow or cancel")


def run(options: argparse.Namespace) -> None:
    """Does what the options say.

    Raises:
        SettingsError: no job is named, or there is no key.
        ServiceError: the service refuses.
    """
    if (options.job is None) != (options.action == "list"):
        raise SettingsError("jobs: write it as `jobs`, `jobs follow ID` or `jobs cancel ID`")
    settings = settings_of_files(options.config, options.set).sections["openai"]
    assert isinstance(settings, OpenAISettings)
    from backends.openai_api.jobs import Jobs  # takes a second to import

    service = Jobs(settings)
    console = Console(highlight=False, markup=False, emoji=False)
    if options.action == "list":
        _list(service)
    elif options.action == "follow":
        _follow(service, options.job, console)
    else:
        console.print(f"{options.job}: {service.cancel(options.job)}")


def _list(service: "Jobs") -> None:
    lines = [("job", "status", "created", "arm", "model")]
    for job in service.latest(_LISTED):
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created))
        lines.append((job.id, job.status, created, job.arm, job.model))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        # Not a table of rich's: it would cut names to fit, and names are what is needed next.
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def _follow(service: "Jobs", job_id: str, console: Console) -> None:
    try:
        with progress(console, job_id) as report:
            service.follow(job_id, in_words(report, console.print))
    except KeyboardInterrupt as interrupt:
        raise ServiceError(
            f"stopped looking; {job_id} goes on at the service (`kaarel-bet jobs follow {job_id}`)"
        ) from interrupt
