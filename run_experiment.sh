#!/usr/bin/env bash
# The whole experiment: generate -> train -> test -> report. Takes the flags of `kaarel-bet run`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export KAAREL_BET_SCRIPT="$root/run_experiment.sh"  # for messages that say how to go on
exec "$root/scripts/uv" run --project "$root" --quiet --no-dev kaarel-bet run "$@"
