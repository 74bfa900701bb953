# shellcheck shell=bash
# The pipeline without containers: private servers and the four binaries on this machine. Its state folder is .run/host.

HOST_STATE=$RUN_DIR/host

host_running() {
  local name
  for name in postgres rabbitmq ingest fetcher-1 janitor; do program_runs "$HOST_STATE" "$name" || return 1; done
}

host_start() {
  say "no container engine ($NO_ENGINE): using RabbitMQ and PostgreSQL from this machine's packages"
  use_dot_env
  [[ $EUID -ne 0 ]] || require setpriv
  require_rust
  provide_servers
  # What an interrupted start may have left.
  host_stop
  rm -f "$HOST_STATE/events"
  choose_ports
  build_binaries
  # shellcheck disable=SC2034 # the EXIT trap of scripts/up reads it
  STARTED=yes
  start_servers "$HOST_STATE"
  make_users
  write_run_file
  run_setup
  start_binaries
  wait_for_binaries
}

host_stop() {
  local programs
  mapfile -t programs < <(running_programs "$HOST_STATE" mock-client)
  stop_programs "$HOST_STATE" "${programs[@]}" ingest
  mapfile -t programs < <(running_programs "$HOST_STATE" 'fetcher-*')
  stop_programs "$HOST_STATE" "${programs[@]}" janitor
  stop_servers "$HOST_STATE"
}

# Settings that compose would read there hold here too.
use_dot_env() {
  local name value
  while IFS='=' read -r name value; do
    if [[ $name =~ ^[A-Z_]+$ && $name != COMPOSE_* && -z ${!name+set} ]]; then export "$name=$value"; fi
  done <.env
}

choose_ports() {
  export ZIPKIN_URL=${ZIPKIN_URL:-off}
  choose_port INGEST_PORT 9090
  choose_port MOCK_CLIENT_PORT 9010
  choose_port MANAGEMENT_PORT 15672
  choose_server_ports
}

# The users, roles and passwords that the containers have too. From then on AMQP_URL and DATABASE_URL name no user.
make_users() {
  local name log=$HOST_STATE/logs/users.log
  SECRETS=$HOST_STATE/secrets
  RABBITMQ_USER=$SERVER_NAME RABBITMQ_PASSWORD=$SERVER_PASSWORD deploy/secrets/generate "$SECRETS"
  into_log "$log" "$HOST_STATE/rabbitmqctl" import_definitions <"$SECRETS/rabbitmq/definitions.json" ||
    fail "RabbitMQ's users cannot be made ($(tail -n 1 "$log"))"
  # From outside this superuser gets in with its password only, and keeps it.
  PGPASSWORD=$SERVER_PASSWORD into_log "$log" "$POSTGRES_FOLDER/psql" --no-psqlrc --quiet --set=ON_ERROR_STOP=1 \
    --host=127.0.0.1 --port="$POSTGRES_PORT" --username="$SERVER_NAME" --dbname="$SERVER_NAME" \
    --file=deploy/postgres/roles.sql --file=<(grep -v current_user "$SECRETS/roles/passwords.sql") ||
    fail "PostgreSQL's roles cannot be made ($(tail -n 1 "$log"))"
  for name in AMQP_URL DATABASE_URL; do export "$name=${!name%%://*}://${!name#*@}"; done
}

# user_settings BROKER_USER DATABASE_ROLE FOLDER: sets USER_SETTINGS to assignments.
user_settings() {
  USER_SETTINGS=("AMQP_USERNAME=$1" "AMQP_PASSWORD_FILE=$SECRETS/$3/amqp-password")
  if [[ -n $2 ]]; then USER_SETTINGS+=("DATABASE_USERNAME=$2" "DATABASE_PASSWORD_FILE=$SECRETS/$3/database-password"); fi
}

run_setup() {
  user_settings setup pipeline_owner setup
  into_log "$HOST_STATE/logs/setup.log" env "${USER_SETTINGS[@]}" FETCHER_ROLE=fetcher JANITOR_ROLE=janitor READER_ROLE=reader \
    "$(binary setup)" || fail "setup failed ($(tail -n 1 "$HOST_STATE/logs/setup.log"))"
}

# What a second scripts/up needs to show the running pipeline.
write_run_file() {
  local name
  (
    umask 077
    : >"$HOST_STATE/instances"
    for name in INGEST_PORT MOCK_CLIENT_PORT MANAGEMENT_PORT BROKER_METRICS_PORT POSTGRES_PORT AMQP_URL \
      SERVER_PASSWORD QUEUE_PREFIX ZIPKIN_URL OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_ENDPOINT; do
      printf '%s=%q\n' "$name" "${!name:-}"
    done >"$HOST_STATE/run"
  )
}

start_binaries() {
  local number
  export CLIENT_URL=${CLIENT_URL:-http://127.0.0.1:$MOCK_CLIENT_PORT}
  export CALLBACK_URL=${CALLBACK_URL:-http://127.0.0.1:$INGEST_PORT/callback}
  user_settings ingest '' ingest
  start_binary ingest ingest 6060 "${USER_SETTINGS[@]}" "LISTEN_ADDRESS=0.0.0.0:$INGEST_PORT" "SPOOL_DIRECTORY=$HOST_STATE/spool"
  user_settings fetcher fetcher fetcher
  for ((number = 1; number <= ${FETCHERS:-1}; number++)); do
    start_binary "fetcher-$number" fetcher 6061 "${USER_SETTINGS[@]}"
  done
  user_settings janitor janitor janitor
  start_binary janitor janitor 6062 "${USER_SETTINGS[@]}"
  start_binary mock-client mock-client 6063 "LISTEN_ADDRESS=127.0.0.1:$MOCK_CLIENT_PORT"
}

# start_binary NAME BINARY USUAL_ADMIN_PORT ASSIGNMENT...
start_binary() {
  local name=$1 binary=$2 ADMIN_PORT='' usual=$3
  shift 3
  choose_port ADMIN_PORT "$usual"
  echo "$name $binary 127.0.0.1:$ADMIN_PORT" >>"$HOST_STATE/instances"
  start_program "$HOST_STATE" "$name" TERM env "ADMIN_ADDRESS=127.0.0.1:$ADMIN_PORT" "$@" "$(binary "$binary")"
}

wait_for_binaries() {
  local name binary address
  say "waiting until the pipeline is ready"
  while read -r name binary address; do
    wait_until 60 ready_or_hopeless "$name" "$binary" "$address" || true
    ask_binary "$binary" "$address" /readyz >/dev/null 2>&1 && continue
    tail -n 30 "$HOST_STATE/logs/$name.log" >&2
    ask_binary "$binary" "$address" /readyz >&2 || true
    fail "$name does not become ready (its log: .run/host/logs/$name.log)"
  done <"$HOST_STATE/instances"
}

# One that ended three times will not come up: its settings are wrong, most likely.
ready_or_hopeless() {
  ask_binary "$2" "$3" /readyz || [[ $(grep -c " $1 ended" "$HOST_STATE/events") -ge 3 ]]
}

ask_binary() { ADMIN_ADDRESS=$2 timeout 5 "$(binary "$1")" --ask "$3"; }

host_attach() {
  SHOWN_EVENTS=$(wc -l 2>/dev/null <"$HOST_STATE/events" || echo 0)
  # shellcheck source=/dev/null
  . "$HOST_STATE/run"
}

host_addresses() {
  address_line "ingest" "http://localhost:$INGEST_PORT/callback"
  address_line "client service" "http://localhost:$MOCK_CLIENT_PORT/objects/1"
  address_line "RabbitMQ" "http://localhost:$MANAGEMENT_PORT (user $SERVER_NAME, password $SERVER_PASSWORD)"
  address_line "Zipkin" "$(collector "$ZIPKIN_URL")"
  otlp_address "${OTEL_EXPORTER_OTLP_TRACES_ENDPOINT:-}" "${OTEL_EXPORTER_OTLP_ENDPOINT:-}"
  address_line "PostgreSQL" "PGPASSWORD=$SERVER_PASSWORD psql -h 127.0.0.1 -p $POSTGRES_PORT -U $SERVER_NAME"
  address_line "logs" ".run/host/logs/"
  # shellcheck disable=SC2034 # scripts/up reads it
  INGEST_ADDRESS=localhost:$INGEST_PORT
}

host_dead_letters() {
  AMQP_URL=$AMQP_URL QUEUE_PREFIX=$QUEUE_PREFIX AMQP_USERNAME=dead-letters \
    AMQP_PASSWORD_FILE=$HOST_STATE/secrets/dead-letters/amqp-password "$(binary dead-letters)" "$@"
}

host_status() {
  local addresses
  mapfile -t addresses < <(awk '$2 != "mock-client" { print "--" $2 "=" $3 }' "$HOST_STATE/instances")
  timeout --foreground 20 "$(binary status)" "${addresses[@]}" --broker "127.0.0.1:$BROKER_METRICS_PORT" \
    --queue-prefix "$QUEUE_PREFIX" "$@"
}

# Restarts since the last call.
host_events() {
  local file=$HOST_STATE/events count=0
  if [[ -e $file ]]; then
    count=$(wc -l <"$file")
    tail -n +$((SHOWN_EVENTS + 1)) "$file"
  fi
  SHOWN_EVENTS=$count
}
