# shellcheck shell=bash
# The pipeline in containers, by the compose file in deploy/.

containers_running() {
  local running service
  running=" $(container_table '{{.Label "com.docker.compose.service"}}' | tr '\n' ' ')"
  for service in rabbitmq postgres ingest fetcher janitor; do
    [[ $running == *" $service "* ]] || return 1
  done
}

# A setting, its usual value, and the service whose port it publishes.
PUBLISHED='INGEST_PORT 9090 ingest 9090
MOCK_CLIENT_PORT 9010 mock-client 9010
MANAGEMENT_PORT 15672 rabbitmq 15672
ZIPKIN_PORT 9411 zipkin 9411
PROMETHEUS_PORT 9091 prometheus 9090
GRAFANA_PORT 3000 grafana 3000'

# Ports of this machine for the containers that are wanted. One that a running container has is no other's.
choose_published_ports() {
  local name usual service inside wanted held
  wanted=" ingest mock-client rabbitmq $(wanted_profiles | tr '\n' ' ')"
  while read -r name usual service inside; do
    [[ $wanted == *" $service "* ]] || continue
    held=$(published "$service" "$inside")
    export "$name=$(dot_env "$name")"
    if [[ -n $held && (-z ${!name} || ${!name} == "${held#*:}") ]]; then
      export "$name=${held#*:}"
    else
      choose_port "$name" "$usual"
    fi
  done <<<"$PUBLISHED"
}

containers_start() {
  local log=$RUN_DIR/logs/compose.log
  choose_published_ports
  prepare_compose
  # shellcheck disable=SC2034 # the EXIT trap of scripts/up reads it
  STARTED=yes
  quietly "building and starting the containers" "$log" \
    "${COMPOSE[@]}" up -d --build --remove-orphans ${FETCHERS:+--scale "fetcher=$FETCHERS"} || exit 1
  say "waiting until the pipeline is ready"
  wait_until 180 ready_or_restarting || true
  all_containers_ready || show_unready_containers
}

# Without the profiles of the optional services their containers would be left.
containers_stop() {
  COMPOSE_PROFILES=zipkin,observability quietly "removing the containers" "$RUN_DIR/logs/compose.log" \
    "${COMPOSE[@]}" down --remove-orphans "$@"
}

# container_table FORMAT [OPTION...]: one line a container of this project.
container_table() {
  local format=$1
  shift
  docker ps "$@" --filter "label=com.docker.compose.project=$(dot_env COMPOSE_PROJECT_NAME)" --format "$format"
}

all_containers_ready() { [[ -n $(container_table '{{.ID}}') && -z $(unready_containers) ]]; }

# One that was started again three times will not come up: its settings are wrong, most likely.
ready_or_restarting() {
  local ids
  all_containers_ready && return
  mapfile -t ids < <(container_table '{{.ID}}' -a)
  docker inspect --format '{{.RestartCount}}' "${ids[@]}" | grep -qE '^([3-9]|[0-9]{2,})$'
}

# A container with no health check is ready when it runs, one that had one thing to do when it has done it.
unready_containers() {
  container_table '{{.Names}} {{.Status}}' -a |
    awk '!/ Up .*\(healthy\)/ && !(/ Up / && !/\(/) && !/ Exited \(0\)/ { print $1 }'
}

show_unready_containers() {
  local name
  for name in $(unready_containers); do
    warn "--- $name: $(docker inspect --format '{{.State.Status}}{{with .State.Health}}, {{.Status}}{{end}}' "$name")"
    docker logs --tail 30 "$name" >&2 || true
  done
  fail "these do not become ready: $(unready_containers | tr '\n' ' ')"
}

# A fetcher's container has the command, and the way to the broker in its environment. Only this user may read the password.
containers_dead_letters() {
  docker exec --user 10005:10005 -e AMQP_USERNAME=dead-letters -e AMQP_PASSWORD_FILE=/secrets/dead-letters/amqp-password \
    "$(containers fetcher | head -n 1)" /usr/local/bin/dead-letters "$@"
}

containers_attach() { :; }

management_password() { docker exec "$(containers rabbitmq)" cat "/secrets/rabbitmq/$(dot_env RABBITMQ_USER)-password"; }

# Every image of ours has the command, which finds the others by name.
containers_status() {
  local id service
  for service in ingest fetcher janitor; do
    id=$(containers "$service" | head -n 1)
    if [[ -n $id ]]; then break; fi
  done
  timeout --foreground 20 docker exec "$id" /usr/local/bin/status "$@"
}

# published SERVICE PORT: where it is on this host.
published() {
  local id
  id=$(containers "$1" | head -n 1)
  if [[ -n $id ]]; then docker port "$id" "$2/tcp" 2>/dev/null | sed -n '1s/^.*:/localhost:/p'; fi
}

containers_addresses() {
  local zipkin
  # shellcheck disable=SC2034 # scripts/up reads it
  INGEST_ADDRESS=$(published ingest 9090)
  zipkin=$(published zipkin 9411)
  address_line "ingest" "http://$INGEST_ADDRESS/callback"
  address_line "client service" "http://$(published mock-client 9010)/objects/1"
  address_line "RabbitMQ" "http://$(published rabbitmq 15672) (user $(dot_env RABBITMQ_USER), password $(management_password))"
  address_line "Zipkin" "${zipkin:+http://}${zipkin:-$(collector "$(setting_of ingest ZIPKIN_URL)")}"
  otlp_address "$(setting_of ingest OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)" "$(setting_of ingest OTEL_EXPORTER_OTLP_ENDPOINT)"
  optional_address "Prometheus" prometheus 9090
  optional_address "Grafana" grafana 3000
  address_line "PostgreSQL" "scripts/compose exec postgres psql -U $(dot_env POSTGRES_USER) $(dot_env POSTGRES_DB)"
  address_line "logs" "scripts/compose logs -f"
}

# setting_of SERVICE NAME: its value in a running container.
setting_of() {
  docker inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$(containers "$1" | head -n 1)" | sed -n "s/^$2=//p"
}

# optional_address LABEL SERVICE PORT: nothing for what does not run.
optional_address() {
  local address
  address=$(published "$2" "$3")
  if [[ -n $address ]]; then address_line "$1" "http://$address"; fi
}

# The engine restarts what dies; its count is in `docker inspect`, not worth asking for each second.
containers_events() { :; }
