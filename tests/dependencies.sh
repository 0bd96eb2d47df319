#!/bin/sh
# Holds the direction of dependencies: models <- train, models <- export, models <- edge; tests -> everything.
# Also: the edge and the models never link candle, and the world stands alone.
set -eu
cd "$(dirname "$0")/.."
status=0
forbid() {
  crate=$1
  shift
  tree=$(cargo tree --offline --quiet -p "$crate" --edges normal,build --prefix none --format '{p}' 2>/dev/null ||
    cargo tree --quiet -p "$crate" --edges normal,build --prefix none --format '{p}')
  for other in "$@"; do
    if printf '%s\n' "$tree" | grep -q "^$other v"; then
      echo "forbidden dependency: $crate -> $other (see docs/ARCHITECTURE.md)" >&2
      status=1
    fi
  done
}
forbid reid-models reid-train reid-export reid-edge reid-world reid-tests candle-core candle-nn gstreamer
forbid reid-train reid-export reid-edge reid-world reid-tests gstreamer
forbid reid-export reid-train reid-edge reid-world reid-tests candle-core candle-nn gstreamer
forbid reid-edge reid-train reid-export reid-world reid-tests candle-core candle-nn
forbid reid-world reid-models reid-train reid-export reid-edge reid-tests candle-core
[ $status = 0 ] && echo "dependencies: every direction holds"
exit $status
