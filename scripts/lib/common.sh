# shellcheck shell=bash
# What every script needs. Sourcing it moves to the root of the repository.

# That of macOS is 3.2; bash reads a file command by command, so these words come before what it cannot read.
case ${BASH_VERSION:-} in
  '' | [1-3].* | 4.[0-3].*)
    echo "error: the scripts need bash 4.4 or newer, and this is ${BASH_VERSION:-another shell}." \
      "Without it: docker compose up --build" >&2
    exit 1
    ;;
esac
set -Eeuo pipefail

# Nothing ends without a word, but for what Ctrl-C ended (codes above 128).
on_error() {
  if [[ $1 -le 128 ]]; then printf 'error: %s:%s: failed: %s\n' "$2" "$3" "${4%%$'\n'*}" >&2; fi
}
trap 'on_error $? "${BASH_SOURCE[0]}" "$LINENO" "$BASH_COMMAND"' ERR

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$ROOT"
RUN_DIR=$ROOT/.run
STEP=''    # process group of the long command that runs now
SLEEPER='' # process of the pause that runs now
TICKER=''  # process that shows how long the long command runs

# One line an argument.
say() { printf '%s\n' "$@"; }
warn() { printf '%s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# What helps on a machine that lacks something.
WAY_OUT="or run it in containers, which needs a container engine only: docker compose up --build"

# require PROGRAM...
require() {
  local program missing=''
  for program in "$@"; do have "$program" || missing+=" $program"; done
  [[ -z $missing ]] ||
    fail "missing here:$missing. Linux has them in the packages coreutils and util-linux: install those, $WAY_OUT"
}

# at_least VERSION LOWEST
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

# curl to this machine or its containers: a proxy of the environment is not for that.
local_curl() { curl --noproxy '*' -fsS "$@"; }

# Other users (postgres, rabbitmq) have to get through this folder when root runs the scripts.
make_run_dir() {
  mkdir -p "$RUN_DIR/logs" 2>/dev/null || true
  [[ -w $RUN_DIR && -w $RUN_DIR/logs ]] ||
    fail "$RUN_DIR cannot be written by $(id -un): it was made by another user; run as that user or delete it"
  if [[ -O $RUN_DIR ]]; then chmod 755 "$RUN_DIR"; fi
}

# A signal ends the long command of the moment, then the script; the EXIT trap of the script stops what it started.
on_signals() {
  trap 'end_by_signal 130' INT
  trap 'end_by_signal 143' TERM HUP
}

end_by_signal() {
  trap '' INT TERM HUP
  if [[ -n $TICKER ]]; then kill -KILL "$TICKER" 2>/dev/null || true; fi
  if [[ -n $SLEEPER ]]; then kill "$SLEEPER" 2>/dev/null || true; fi
  if [[ -n $STEP ]]; then
    kill -TERM -- "-$STEP" 2>/dev/null || true
    wait_until 15 group_ended "$STEP" || kill -KILL -- "-$STEP" 2>/dev/null || true
  fi
  exit "$1"
}

# The first process of a group may end before those that still clean up.
group_ended() { ! kill -0 -- "-$1"; }

# interruptible COMMAND...: bash runs a trap only between commands, so a long command goes to the background, where its
# whole process group can be ended at once. (Without `set -m` it would ignore SIGINT and share the group of the script.)
interruptible() {
  local code=0
  set -m
  "$@" </dev/null &
  STEP=$!
  set +m
  wait "$STEP" || code=$?
  STEP=''
  return "$code"
}

# In the background itself, so that what a trap prints meanwhile is seen.
into_log() {
  local log=$1
  shift
  "$@" >>"$log" 2>&1
}

# quietly LABEL LOG COMMAND...: keeps the output of a long command in LOG; shows how long it runs, and its end when it fails.
quietly() {
  local label=$1 log=$2 code=0 since=$SECONDS
  shift 2
  if [[ -t 1 ]]; then
    while sleep 1 && kill -0 $$; do printf '\r%s ... %d s ' "$label" $((SECONDS - since)); done 2>/dev/null &
    TICKER=$!
  else
    say "$label ..."
  fi
  printf '== %s\n' "$*" >"$log"
  interruptible into_log "$log" "$@" || code=$?
  if [[ -n $TICKER ]]; then
    # Not TERM: that is ignored while a script cleans up.
    kill -KILL "$TICKER" 2>/dev/null || true
    wait "$TICKER" 2>/dev/null || true
    TICKER=''
    printf '\r%s: %d s \n' "$label" $((SECONDS - since))
  fi
  if [[ $code -ne 0 ]]; then
    tail -n 40 "$log" >&2
    warn "failed: $* (all of its output: ${log#"$ROOT"/})"
  fi
  return "$code"
}

# wait_until SECONDS COMMAND...
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [[ $SECONDS -lt $end ]] || return 1
    pause 0.3
  done
}

# A sleep that a signal ends at once.
pause() {
  sleep "$1" 8>&- &
  SLEEPER=$!
  wait "$SLEEPER" || true
  SLEEPER=''
}

# A lock on FILE for the rest of the script; says so when it has to wait.
lock() {
  exec 8>"$1"
  flock -n 8 && return
  say "another script is at work in this folder; waiting for it"
  flock 8
}

# setting_in FILE NAME: the value of its last line NAME=VALUE, or nothing.
setting_in() { if [[ -e $1 ]]; then sed -n "s/^$2=//p" "$1" | tail -n 1; fi; }

random_word() { od -An -N12 -tx1 /dev/urandom | tr -d ' \n'; }

# The kernel's table rather than ss, which a bare machine lacks. State 0A is LISTEN.
port_is_free() {
  { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true; } |
    awk -v port="$(printf ':%04X' "$1")" \
      '$4 == "0A" && substr($2, length($2) - 4) == port { taken = 1 } END { exit taken }'
}

# choose_port NAME [DEFAULT]: sets the variable NAME. A port that was given must be free; the default gives way to a free one.
# Free ones come from below the range that the kernel hands to outgoing connections.
CHOSEN_PORTS=' '
choose_port() {
  local name=$1 default=${2:-} port=${!1:-}
  if [[ -n $port ]]; then
    port_is_free "$port" || fail "port $port is taken: give another one as $name"
  elif [[ -z $default || $CHOSEN_PORTS == *" $default "* ]]; then
    port=$(free_port)
  elif port_is_free "$default"; then
    port=$default
  else
    port=$(free_port)
    say "port $default is taken: $name is $port"
  fi
  CHOSEN_PORTS+="$port "
  printf -v "$name" %s "$port"
}

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    if [[ $CHOSEN_PORTS != *" $port "* ]] && port_is_free "$port"; then break; fi
  done
  echo "$port"
}
