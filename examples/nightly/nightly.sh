#!/usr/bin/env bash
# One night: run the benchmark, compare it with the baseline, store it. Exit status of `lines regress`:
# 0 no regression (or the first night, which becomes the baseline), 1 a regression, 2 the comparison failed.
#   nightly.sh SPEC FOLDER
set -euo pipefail
spec=$(realpath "$1")
mkdir -p "$2"
cd "$2"

# A run of more than a day must not overlap the next one.
exec 9>lock
flock --nonblock 9 || { echo "the night before is still running in $PWD" >&2; exit 2; }

night=$(date -u +%Y-%m-%dT%H-%M-%S)
mkdir -p runs history logs
exec > >(tee "logs/$night.log") 2>&1

status=0
lines run "$spec" --out "runs/$night" --no-cache || status=2
if [ $status = 0 ]; then
  lines baseline set "runs/$night" "history/$night.parquet" || status=2
fi
if [ $status = 0 ]; then
  [ -e baseline.parquet ] || cp "history/$night.parquet" baseline.parquet
  lines regress "runs/$night" --baseline baseline.parquet --spec "$spec" \
    --markdown regress.md --junit regress.xml || status=$?
  lines history history/*.parquet --out history.html || echo "no history: see the log above"
fi

# ON_REGRESSION is a command that reads the message, for example `mail -s nightly you@example.org`.
if [ $status != 0 ] && [ -n "${ON_REGRESSION:-}" ]; then
  { echo "status $status, $PWD/logs/$night.log"; if [ $status = 1 ]; then cat regress.md; fi; } |
    bash -c "$ON_REGRESSION" || echo "sending the message failed: $ON_REGRESSION"
fi
exit $status
