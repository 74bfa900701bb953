# shellcheck shell=bash
# Programs kept running by scripts/lib/supervise. Each is known by its name within a state folder.

# start_program STATE NAME SIGNAL COMMAND...
start_program() {
  local state=$1 name=$2 signal=$3 log=$1/logs/$2.log
  shift 3
  mkdir -p "$state/logs"
  : >"$log"
  exec 9>>"$state/$name.lock"
  flock -n 9 || fail "$name runs already"
  # setsid: Ctrl-C and the end of the terminal are not for it. It keeps the lock (9), but not that of this script (8).
  setsid "$ROOT/scripts/lib/supervise" "$state" "$name" "$signal" "$log" "$@" </dev/null >/dev/null 2>&1 8>&- &
  echo $! >"$state/$name.pid"
  disown
  exec 9>&-
}

# A pid file may be older than a reboot, a lock cannot.
program_runs() { [[ -e $1/$2.lock ]] && ! flock -sn "$1/$2.lock" true; }
program_stopped() { ! program_runs "$@"; }

# running_programs STATE [PATTERN]
running_programs() {
  local file name
  for file in "$1"/${2:-*}.lock; do
    name=$(basename "$file" .lock)
    if program_runs "$1" "$name"; then echo "$name"; fi
  done
}

# stop_programs STATE NAME...: all are told, then all are waited for; what does not end is killed.
stop_programs() {
  local state=$1 name
  shift
  for name in "$@"; do
    signal_program "$state" "$name" TERM
    # A test that was interrupted may have held it.
    signal_program "$state" "$name" CONT
  done
  for name in "$@"; do
    wait_until 20 program_stopped "$state" "$name" && continue
    warn "$name does not stop: killed"
    signal_program "$state" "$name" KILL
    wait_until 10 program_stopped "$state" "$name" || warn "$name cannot be killed"
  done
}

# KILL goes to the whole group of the program, for nobody is left to hand it on.
signal_program() {
  local pid
  program_runs "$1" "$2" || return 0
  pid=$(cat "$1/$2.pid")
  if [[ $3 == KILL ]]; then pid=-$pid; fi
  kill -s "$3" -- "$pid" 2>/dev/null || true
}
