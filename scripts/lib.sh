# SPDX-License-Identifier: Apache-2.0
# What the scripts share; sourced by them, after `set -euo pipefail`.
# shellcheck shell=bash disable=SC2034  # used by those who source it

OUTBOX_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OUTBOX_CACHE=${OUTBOX_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/outbox-relay}
KAFKA_VERSION=${KAFKA_VERSION:-$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$OUTBOX_ROOT/scripts/kafka/pom.xml")}
KAFKA_HOME=$OUTBOX_CACHE/kafka-$KAFKA_VERSION
# Classes of the broker, parsed ahead: halves its start. Made by scripts/setup; the JVM does without if it is missing or stale.
KAFKA_CLASSES=$OUTBOX_CACHE/kafka-$KAFKA_VERSION.jsa

say() { printf '== %s\n' "$*" >&2; }

# die WHAT HAPPENED [HINT]
die() {
  printf '%s: error: %s\n' "${0##*/}" "$1" >&2
  [ -z "${2:-}" ] || printf 'HINT: %s\n' "$2" >&2
  exit 1
}

# wait_for SECONDS WHAT COMMAND...: polls COMMAND until it succeeds; fails loudly at the deadline.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || {
      printf '%s: gave up waiting for %s\n' "${0##*/}" "$what" >&2
      return 1
    }
    sleep 0.05
  done
}

# started_at PID: when the process started, in clock ticks; with the pid, its identity. Fails if it is gone, or a zombie.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name of the program, in parentheses, may hold spaces: cut it off. Then field 1 is the state, field 20 the start.
  read -ra stat <<<"${stat##*) }"
  [ "${stat[0]}" != Z ] || return 1
  printf '%s\n' "${stat[19]}"
}

# is_running PID STARTED_AT: whether that very process is still there.
is_running() { [ -n "$2" ] && [ "$(started_at "$1")" = "$2" ]; }

# is_gone PID STARTED_AT
is_gone() { ! is_running "$@"; }

# free_port: a loopback port nobody listens on, below the range that outgoing connections draw from.
free_port() {
  local port
  while :; do
    port=$((15000 + (RANDOM * 32768 + RANDOM) % 15000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  printf '%s\n' "$port"
}

# pg_bin: folder of the newest PostgreSQL server programs; PG_BIN overrides it.
pg_bin() {
  local newest
  newest=${PG_BIN:-$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)}
  [ -x "$newest/initdb" ] || return 1
  printf '%s\n' "$newest"
}
