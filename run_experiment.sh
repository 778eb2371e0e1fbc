#!/usr/bin/env bash
# The whole experiment: generate -> train -> test -> report. Takes the flags of `kaarel-bet run`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$root/scripts/uv" run --project "$root" --quiet --no-dev kaarel-bet run "$@"
