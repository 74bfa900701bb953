# shellcheck shell=bash
# The numbers of the running pipeline, for scripts/up and scripts/status. MODE is host or containers; MANAGEMENT_URL must be set
# (host_attach, containers_attach). Two samples make rates.

SAMPLES='' # folder with the files "before" and "now"

# take_sample: what every replica counts and what the broker has, as FILE "now"; what was "now" becomes "before". A line is
# INSTANCE NAME{LABELS} NUMBER. All are asked at once, so that one that hangs does not hold up the others.
take_sample() {
  local instance service
  if [[ -z $SAMPLES ]]; then SAMPLES=$(mktemp -d "$RUN_DIR/samples.XXXXXX"); fi
  if [[ -e $SAMPLES/now ]]; then mv "$SAMPLES/now" "$SAMPLES/before"; fi
  rm -rf "$SAMPLES/parts"
  mkdir "$SAMPLES/parts"
  while read -r instance service; do
    sample_instance "$instance" "$service" >"$SAMPLES/parts/$instance" &
  done < <(instances)
  queue_numbers >"$SAMPLES/parts/broker"
  wait
  cat "$SAMPLES/parts"/* >"$SAMPLES/now"
}

# A line each: its name and its service.
instances() {
  local service
  for service in ingest fetcher janitor mock-client; do "${MODE}_instances" "$service" | sed "s/$/ $service/"; done
}

# EPOCHREALTIME has the decimal point of the locale.
sample_instance() {
  local answer answers=0
  echo "$1 sampled_at ${EPOCHREALTIME/,/.}"
  if answer=$("${MODE}_ask_instance" "$1" "$2" /metrics 2>/dev/null); then answers=1; fi
  echo "$1 answers{service=\"$2\"} $answers"
  sed -n "/^[^#]/s/^/$1 /p" <<<"$answer"
}

forget_samples() { if [[ -n $SAMPLES ]]; then rm -rf "$SAMPLES"; fi; }

# The management API, which refreshes its numbers every 5 s. Nothing when it does not answer.
queue_numbers() {
  local login=${MANAGEMENT_URL#*://}
  # The password is read from standard input: everybody sees the arguments.
  local_curl -m 3 --config - 2>/dev/null <<<"user = \"${login%@*}\"" \
    "http://${login##*@}/api/queues/%2F?columns=name,messages_ready,messages_unacknowledged,consumers" |
    sed 's/},{/}\n{/g' |
    awk -v prefix="${QUEUE_PREFIX:-}" '
      function value(key) {
        if (!match($0, "\"" key "\":[0-9]+")) return 0
        return substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3)
      }
      match($0, /"name":"[^"]*"/) {
        queue = substr($0, RSTART + 8, RLENGTH - 9)
        if (index(queue, prefix "objects.") != 1) next
        queue = substr(queue, length(prefix) + 1)
        # Those that differ by their delay alone count together.
        sub(/\.[0-9]+$/, "", queue)
        printf "broker queue_ready{queue=\"%s\"} %d\n", queue, value("messages_ready")
        printf "broker queue_unacked{queue=\"%s\"} %d\n", queue, value("messages_unacknowledged")
        printf "broker queue_consumers{queue=\"%s\"} %d\n", queue, value("consumers")
      }' || true
}

# render table|line [WIDTH]: what the samples say.
render() {
  local before=$SAMPLES/before
  if [[ ! -e $before ]]; then before=$SAMPLES/now; fi
  awk -v form="$1" -v width="${2:-0}" -f "$ROOT/scripts/lib/status.awk" "$before" "$SAMPLES/now"
}

# draw_table: on a terminal, cut to its width, for a line that wraps could not be drawn over.
DRAWN=0 # lines
draw_table() {
  local table
  table=$(render table | cut -c "-$(terminal_width)")
  say "$table"
  DRAWN=$(wc -l <<<"$table")
}

# Asked of the terminal itself, for the output of a substitution is none.
terminal_width() { (stty size </dev/tty | cut -d ' ' -f 2) 2>/dev/null || echo 120; }

erase_table() {
  if [[ $DRAWN -gt 0 ]]; then printf '\033[%dA\033[J' "$DRAWN"; fi
  DRAWN=0
}
