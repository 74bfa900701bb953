# shellcheck shell=bash
# A private RabbitMQ and PostgreSQL, from the packages of this machine, on loopback. They never touch the system's own.
# Everything of one pair is in a state folder: locks and pids, logs/, ports, and data/ (or data-folder, which says where).

SERVER_NAME=pipeline # user, database and node

# Empty ones are chosen, given ones are checked.
choose_server_ports() {
  choose_port AMQP_PORT
  choose_port MANAGEMENT_PORT
  choose_port POSTGRES_PORT
}

# start_servers STATE [POSTGRES_OPTION...]: returns when both answer, with AMQP_URL and DATABASE_URL set.
start_servers() {
  local state=$1
  shift
  make_data_folder "$state"
  set_server_urls
  say "starting a private RabbitMQ and PostgreSQL"
  start_postgres "$state" "$@"
  start_rabbitmq "$state"
  wait_for_server "$state" postgres postgres_answers
  wait_for_server "$state" rabbitmq rabbitmq_answers
}

stop_servers() {
  local state=$1
  stop_programs "$state" rabbitmq postgres
  if [[ -e $state/epmd-port ]]; then
    ERL_EPMD_PORT=$(cat "$state/epmd-port") epmd -kill >/dev/null 2>&1 || true
    rm -f "$state/epmd-port"
  fi
}

# remove_servers STATE: stops them, and deletes their data and the folder.
remove_servers() {
  stop_servers "$1"
  if [[ -e $1/data-folder ]]; then rm -rf "$(cat "$1/data-folder")"; fi
  rm -rf "$1"
}

set_server_urls() {
  local password_file=$DATA/password
  if [[ ! -s $password_file ]]; then
    (
      umask 077
      random_word >"$password_file"
    )
  fi
  SERVER_PASSWORD=$(cat "$password_file")
  local login=$SERVER_NAME:$SERVER_PASSWORD
  AMQP_URL=amqp://$login@127.0.0.1:$AMQP_PORT/%2f
  DATABASE_URL=postgres://$login@127.0.0.1:$POSTGRES_PORT/$SERVER_NAME
  export AMQP_URL DATABASE_URL
}

# Sets DATA. PostgreSQL refuses to run as root, so root gives each server to the user of its package. Those users cannot reach
# a clone under /root; the data is under /var/tmp then, which outlives a reboot.
make_data_folder() {
  local state=$1
  mkdir -p "$state"
  DATA=$state/data
  if [[ $EUID -eq 0 ]]; then
    chmod 755 "$state"
    if ! as postgres test -x "$state" || ! as rabbitmq test -x "$state"; then
      DATA=/var/tmp/callback-pipeline-$(cksum <<<"$state" | tr -d ' ')
      echo "$DATA" >"$state/data-folder"
    fi
  fi
  mkdir -p "$DATA"
  # Anyone may make folders in /var/tmp, and root must not trust those.
  [[ -O $DATA && ! -L $DATA ]] || fail "$DATA belongs to another user: run as that user or delete it"
  chmod 711 "$DATA"
}

# as USER COMMAND...: as that user when we are root, as ourselves otherwise, with an environment of our own making.
as() {
  server_command "$@"
  "${COMMAND[@]}"
}

# write_as USER FILE: from standard input.
write_as() { as "$1" tee "$2" >/dev/null; }

# server_command USER WORD...: sets COMMAND to a command that `exec` can take. Words may begin with assignments.
server_command() {
  local user=$1
  shift
  COMMAND=(env -i --chdir=/ "PATH=$PATH" LANG=C.UTF-8 "$@")
  if [[ $EUID -eq 0 ]]; then
    COMMAND=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --init-groups "${COMMAND[@]}")
  fi
}

# server_folder USER: DATA/USER, theirs alone.
server_folder() {
  local folder=$DATA/$1
  mkdir -p "$folder"
  [[ $EUID -eq 0 || -O $folder ]] || fail "$folder belongs to another user: run as that user or delete it"
  chmod 700 "$folder"
  if [[ $EUID -eq 0 ]]; then chown "$1" "$folder"; fi
}

wait_for_server() {
  wait_until 90 "$3" && return
  tail -n 30 "$1/logs/$2.log" >&2
  fail "$2 does not answer after 90 s (its log: $1/logs/$2.log)"
}

# --- PostgreSQL

start_postgres() {
  local state=$1 cluster=$DATA/postgres/cluster version=''
  shift
  server_folder postgres
  if [[ -e $cluster/PG_VERSION ]]; then version=$(cat "$cluster/PG_VERSION"); fi
  POSTGRES_FOLDER=$(find_postgres "$version") ||
    fail "the data in $cluster is of PostgreSQL $version, which is not installed: install it, or delete the data" \
      "with scripts/down --volumes"
  [[ -n $version ]] || interruptible into_log "$state/initdb.log" create_cluster "$POSTGRES_FOLDER" "$cluster" || {
    tail -n 20 "$state/initdb.log" >&2
    fail "PostgreSQL could not create $cluster"
  }
  server_command postgres "$POSTGRES_FOLDER/postgres" -D "$cluster" -p "$POSTGRES_PORT" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c max_connections=300 "$@"
  # SIGINT is its fast shut-down: SIGTERM waits until every client has left.
  start_program "$state" postgres INT "${COMMAND[@]}"
}

# Made next to its place and moved there when complete: an interrupted attempt leaves nothing that looks like a cluster.
create_cluster() {
  local bin=$1 cluster=$2 new=$2.new password=$2.password
  rm -rf "$new"
  write_as postgres "$password" <<<"$SERVER_PASSWORD" &&
    as postgres "$bin/initdb" -D "$new" --username="$SERVER_NAME" --pwfile="$password" --auth=scram-sha-256 \
      --encoding=UTF8 --locale=C.UTF-8 &&
    rm -f "$password" &&
    as postgres "$bin/postgres" --single -D "$new" postgres <<<"create database \"$SERVER_NAME\"" &&
    mv "$new" "$cluster"
}

postgres_answers() { "$POSTGRES_FOLDER/pg_isready" -q -h 127.0.0.1 -p "$POSTGRES_PORT"; }

# --- RabbitMQ

start_rabbitmq() {
  local state=$1 folder=$DATA/rabbitmq
  server_folder rabbitmq
  choose_port DIST_PORT
  choose_port BROKER_METRICS_PORT
  choose_port EPMD_PORT
  # Kept for stop_servers: epmd, Erlang's name server, is a daemon that only its port leads to.
  echo "$EPMD_PORT" >"$state/epmd-port"
  write_rabbitmq_files "$folder"
  rabbitmq_environment "$folder"
  write_rabbitmqctl "$state/rabbitmqctl"
  server_command rabbitmq "${RABBITMQ_ENVIRONMENT[@]}" "$(find_rabbitmq)"
  start_program "$state" rabbitmq TERM "${COMMAND[@]}"
}

# A rabbitmqctl that finds this server and no other.
write_rabbitmqctl() {
  local server
  server=$(find_rabbitmq)
  server_command rabbitmq "${RABBITMQ_ENVIRONMENT[@]}" "${server%-server}ctl"
  {
    echo '#!/usr/bin/env bash'
    printf '%q ' exec "${COMMAND[@]}"
    echo '"$@"'
  } >"$1"
  chmod +x "$1"
}

# Written again at each start because the ports may differ. The user is created with the database, instead of guest.
write_rabbitmq_files() {
  local folder=$1
  write_as rabbitmq "$folder/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:$AMQP_PORT
management.tcp.ip = 127.0.0.1
management.tcp.port = $MANAGEMENT_PORT
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = $BROKER_METRICS_PORT
default_user = $SERVER_NAME
default_pass = $SERVER_PASSWORD
END
  write_as rabbitmq "$folder/enabled_plugins" <deploy/rabbitmq/enabled_plugins
  write_as rabbitmq "$folder/advanced.config" <<<'[].'
  write_as rabbitmq "$folder/rabbitmq-env.conf" </dev/null
  [[ -e $folder/.erlang.cookie ]] || write_as rabbitmq "$folder/.erlang.cookie" < <(random_word)
  # Erlang refuses a cookie that others can read.
  as rabbitmq chmod 400 "$folder/.erlang.cookie"
}

# Every path and port that would otherwise be that of the system's RabbitMQ.
rabbitmq_environment() {
  local folder=$1
  RABBITMQ_ENVIRONMENT=(
    "HOME=$folder" # the cookie is here
    "RABBITMQ_NODENAME=$SERVER_NAME@localhost"
    "RABBITMQ_CONF_ENV_FILE=$folder/rabbitmq-env.conf"
    "RABBITMQ_CONFIG_FILE=$folder/rabbitmq.conf"
    "RABBITMQ_ADVANCED_CONFIG_FILE=$folder/advanced.config"
    "RABBITMQ_ENABLED_PLUGINS_FILE=$folder/enabled_plugins"
    "RABBITMQ_MNESIA_BASE=$folder/mnesia"
    "RABBITMQ_SCHEMA_DIR=$folder/schema"
    "RABBITMQ_LOG_BASE=$folder/log"
    "RABBITMQ_LOGS=-" # to standard output, which is the log of the supervisor
    "RABBITMQ_DIST_PORT=$DIST_PORT"
    # Dead letters that found no queue are tried again after 2 s, not 3 minutes, and 512 are on their way at once, not 32.
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} -rabbit dead_letter_worker_publisher_confirm_timeout 2000 -rabbit dead_letter_worker_consumer_prefetch 512"
    "ERL_EPMD_PORT=$EPMD_PORT"
    "ERL_EPMD_ADDRESS=127.0.0.1"
    "ERL_CRASH_DUMP_SECONDS=0"
    # The start script becomes the server then, instead of its parent: a kill -9 of either cannot leave the other.
    "RUNNING_UNDER_SYSTEMD=true"
  )
}

# The password is read from standard input: everybody sees the arguments.
rabbitmq_answers() {
  local_curl -m 2 --config - "http://127.0.0.1:$MANAGEMENT_PORT/api/health/checks/port-listener/$AMQP_PORT" \
    <<<"user = $SERVER_NAME:$SERVER_PASSWORD"
}
