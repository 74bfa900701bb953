# shellcheck shell=bash
# The numbers of the running pipeline. MODE is host or containers; MANAGEMENT_URL must be set (host_attach, containers_attach).

# One line of NAME=VALUE words, from the metrics of every replica and the broker's count of waiting messages.
# queued is -1 when the broker does not say.
pipeline_numbers() {
  local service
  {
    for service in ingest fetcher janitor; do "${MODE}_ask" "$service" /metrics 2>/dev/null; done
    echo "messages_ready $(messages_ready)"
  } | awk '
    /^#/ { next }
    /^objects_deleted_total\{.*by="sweep"/ { sweep += $NF }
    { name = $1; sub(/\{.*/, "", name); sum[name] += $NF; if ($NF > most[name]) most[name] = $NF }
    END {
      ids = sum["callback_ids_accepted_total"]
      chunks = sum["callback_chunks_published_total"]
      ready = sum["messages_ready"]
      # Messages can wait from before a restart of ingest, whose counters began anew: each counts as one id then.
      queued = ready < 0 ? -1 : ready * (chunks > 0 ? ids / chunks : 1)
      printf "accepted=%d ids=%d queued=%d in_flight=%d stored=%d offline=%d deleted=%d by_sweep=%d spooled=%d lateness_ms=%d\n",
        sum["callbacks_accepted_total"], ids, queued + (queued > 0 ? 0.5 : 0), sum["fetches_in_flight"],
        sum["objects_stored_total"], sum["objects_offline_total"], sum["objects_deleted_total"], sweep,
        sum["spool_callbacks"], 1000 * most["object_deletion_last_lateness_seconds"] + 0.5
    }'
}

# The management API: the messages that no fetcher has taken yet. It refreshes its numbers every 5 s.
messages_ready() {
  local answer
  answer=$(curl -fsS -m 2 "$MANAGEMENT_URL/api/queues/%2F/${QUEUE_PREFIX:-}objects.fetch?columns=messages_ready" 2>/dev/null) || true
  answer=${answer#*\"messages_ready\":}
  answer=${answer%%[!0-9]*}
  echo "${answer:--1}"
}

# live_line WIDTH: the short form where the long one does not fit.
live_line() {
  local line numbers accepted ids queued in_flight stored offline deleted by_sweep spooled lateness_ms
  numbers=$(pipeline_numbers) || return
  eval "$numbers"
  if [[ $queued -lt 0 ]]; then queued='?'; else queued="~$queued"; fi
  line="accepted $accepted callbacks ($ids ids) | queued $queued ids | in flight $in_flight | stored $stored"
  line+=" | offline $offline | deleted $deleted ($by_sweep by sweep) | lateness $lateness_ms ms"
  if [[ ${#line} -gt $1 ]]; then
    line="in $ids | queued $queued | in flight $in_flight | stored $stored | deleted $deleted | late $lateness_ms ms"
  fi
  # Seldom there, and then the most important number.
  if [[ $spooled -gt 0 ]]; then line="IN THE SPOOL: $spooled callbacks | $line"; fi
  echo "${line:0:$1}"
}
