# Renders two samples of the pipeline's numbers (scripts/lib/numbers.sh) as a table or as a line. The first file is the earlier
# sample; with the same file twice there are no rates yet.

# A label's value in a sample's first word.
function label(key, name,    at) {
  at = index(key, name "=\"")
  if (!at) return ""
  key = substr(key, at + length(name) + 2)
  return substr(key, 1, index(key, "\"") - 1)
}

# Label values may have spaces, so the number is what is behind the last one.
{
  instance = $1
  value = $NF
  key = substr($0, length(instance) + 2, length($0) - length(instance) - length(value) - 2)
  if (FNR == NR) {
    before[instance, key] = value
    next
  }
  if (key == "sampled_at") now[instance] = value
  name = key
  sub(/\{.*/, "", name)
  sum[key] += value
  total[name] += value
  if (!(name in most) || value > most[name]) most[name] = value
  if (name == "answers") replicas[label(key, "service"), value]++
  if (name == "dependency_up" && value == 0) down[label(key, "dependency")] = 1
  if (name == "queue_ready") broker_answers = 1
  # Rates are of those that were there before: one that was not has counted since its own start.
  if (name !~ /_total$/ || !((instance, key) in before)) next
  elapsed = now[instance] - before[instance, "sampled_at"]
  if (elapsed <= 0) next
  # A counter that is smaller than before began anew with its process.
  grown = value < before[instance, key] ? value : value - before[instance, key]
  rates[key] += grown / elapsed
  rate_total[name] += grown / elapsed
  has_rates = 1
}

function all(name) { return sprintf("%.0f", total[name]) }
function one(key) { return sprintf("%.0f", sum[key]) }
function rate(name) { return rate_total[name] + 0 }
function rate_of(key) { return rates[key] + 0 }
function per_second(value) {
  if (!has_rates) return "-/s"
  if (value < 0.05) return "0/s"
  if (value < 9.95) return sprintf("%.1f/s", value)
  return sprintf("%.0f/s", value)
}

function ready(queue) { return one("queue_ready{queue=\"" queue "\"}") }
function waiting(queue) { return broker_answers ? ready(queue) "" : "?" }
function unacked(queue) { return one("queue_unacked{queue=\"" queue "\"}") }
function consumers(queue) { return one("queue_consumers{queue=\"" queue "\"}") }

function seconds(value) {
  if (value < 1) return sprintf("%.0f ms", 1000 * value)
  if (value < 100) return sprintf("%.1f s", value)
  return sprintf("%.0f s", value)
}

function failed_fetches(    outcome) {
  outcome = "fetches_total{outcome=\""
  return rate("fetches_total") - rate_of(outcome "online\"}") - rate_of(outcome "offline\"}") - rate_of(outcome "gone\"}")
}

function row(part, what) { printf "%-9s %s\n", part, what }
function count(part) { return replicas[part, 1] + 0 }
function silent(part) {
  if (!count(part)) return ", no " part " answers"
  if (replicas[part, 0]) return ", " replicas[part, 0] " " part " of " replicas[part, 0] + count(part) " does not answer"
  return ""
}
function times(part) { return "x " count(part) }

# What an operator has to look at, the gravest first; empty when all is well.
function worries(    text, name) {
  text = silent("ingest") silent("fetcher") silent("janitor")
  for (name in down) text = text ", " name " is down"
  if (!broker_answers) text = text ", the broker does not say what is queued"
  else {
    if (consumers("objects.fetch") == 0) text = text ", nobody consumes objects.fetch"
    if (consumers("objects.delete") == 0) text = text ", nobody consumes objects.delete"
    if (ready("objects.dead") > 0) text = text ", " ready("objects.dead") " dead letters"
    if (ready("objects.unroutable") > 0) text = text ", " ready("objects.unroutable") " unroutable messages"
  }
  if (total["spool_callbacks"]) text = text ", " all("spool_callbacks") " callbacks in the spool, the oldest for " seconds(most["spool_oldest_age_seconds"])
  if (rate("callbacks_rejected_total")) text = text ", callbacks are rejected"
  return substr(text, 3)
}

function table(    well) {
  row("accepted", per_second(rate("callbacks_accepted_total")) " callbacks, " per_second(rate("callback_ids_accepted_total")) " ids; rejected " \
    per_second(rate("callbacks_rejected_total")) "; in flight " all("callbacks_in_flight") "; in the spool " all("spool_callbacks") \
    " (ingest " times("ingest") ")")
  row("queued", waiting("objects.fetch") " messages, " unacked("objects.fetch") " at work, " consumers("objects.fetch") " consumers; to retry " \
    waiting("objects.retry") "; dead " waiting("objects.dead") "; unroutable " waiting("objects.unroutable") "; taken " \
    seconds(most["consumer_last_lag_seconds"]) " after due")
  row("looked up", per_second(rate("fetches_total")) "; failed " per_second(failed_fetches()) "; in flight " all("fetches_in_flight") " of " \
    all("fetch_limit") "; joined " per_second(rate("fetches_joined_total")) " (fetcher " times("fetcher") ")")
  row("stored", per_second(rate("objects_stored_total")) " rows; offline " per_second(rate("objects_offline_total")) "; gone " \
    per_second(rate("objects_gone_total")))
  row("deleted", per_second(rate("objects_deleted_total")) " rows; by sweep " one("objects_deleted_total{by=\"sweep\"}") \
    "; late by " seconds(most["object_deletion_last_lateness_seconds"]) "; batches to expire " waiting("objects.delete.delay") " (janitor " \
    times("janitor") ")")
  row("since", "the start of the processes: " all("callbacks_accepted_total") " callbacks, " all("callback_ids_accepted_total") " ids, " \
    all("objects_stored_total") " stored, " all("objects_deleted_total") " deleted, " all("dead_letters_total") " given up")
  well = worries()
  row("state", well == "" ? "well" : toupper(substr(well, 1, 1)) substr(well, 2))
}

# The worries come first: the rest may be cut off.
function line(    text) {
  text = worries()
  if (text != "") text = toupper(text) " | "
  text = text "accepted " per_second(rate("callbacks_accepted_total")) " (" all("callbacks_accepted_total") ") | queued " waiting("objects.fetch") \
    " | in flight " all("fetches_in_flight") " | stored " per_second(rate("objects_stored_total")) " (" all("objects_stored_total") ") | deleted " \
    per_second(rate("objects_deleted_total")) " (" all("objects_deleted_total") ") | late by " seconds(most["object_deletion_last_lateness_seconds"])
  if (width > 0) text = substr(text, 1, width)
  print text
}

END {
  if (form == "table") table()
  else line()
}
