"""`python -m kaarel_bet`, the same as `kaarel-bet`.

Python looks for modules in the working directory first, where a user's own backends.py or names.py would
hide ours or a library's. The command has no such rule, so neither does this.
"""

import sys
from pathlib import Path


def _leave_out_working_directory() -> None:
    ours = Path(__file__).resolve().parents[1]
    if not sys.flags.safe_path and Path(sys.path[0]).resolve() != ours:
        del sys.path[0]


def main() -> int:
    """The command; Ctrl-C ends it in a line already while it is imported, which takes seconds."""
    try:
        from kaarel_bet.cli import main
    except KeyboardInterrupt:
        print("kaarel-bet: stopped", file=sys.stderr)
        return 2
    return main()


if __name__ == "__main__":
    _leave_out_working_directory()
    sys.exit(main())
