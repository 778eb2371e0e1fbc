"""`python -m kaarel_bet`, the same as `kaarel-bet`."""

import sys

from kaarel_bet.cli import main

if __name__ == "__main__":
    sys.exit(main())
