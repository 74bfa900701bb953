# shellcheck shell=bash
# The container engine and its compose tool.

# True when there is an engine that answers and a compose tool, otherwise NO_ENGINE says what is missing.
# ENGINE=docker|none overrides the look.
engine_answers() {
  case ${ENGINE:-} in
    none) NO_ENGINE='ENGINE=none' && return 1 ;;
    '') find_engine ;;
    docker) find_engine || fail "ENGINE=docker, but $NO_ENGINE" ;;
    *) fail "ENGINE is docker or none, not $ENGINE" ;;
  esac
}

find_engine() {
  local answer
  NO_ENGINE=''
  if ! have docker; then
    NO_ENGINE='docker is not installed'
  elif ! answer=$(timeout 8 docker info 2>&1 </dev/null); then
    NO_ENGINE=$(grep -iEm 1 'cannot connect|denied|error' <<<"$answer" | cut -c 1-150 || true)
    NO_ENGINE=${NO_ENGINE:-docker info does not answer}
  elif ! compose_tool; then
    NO_ENGINE='neither docker compose nor docker-compose is installed'
  fi
  [[ -z $NO_ENGINE ]]
}

# Sets COMPOSE to the tool's words: version 2 is part of docker, version 1 a separate program.
# shellcheck disable=SC2034 # its users source this file
compose_tool() {
  if docker compose version >/dev/null 2>&1; then
    COMPOSE=(docker compose)
  elif have docker-compose; then
    COMPOSE=(docker-compose)
  else
    return 1
  fi
}

# dot_env NAME: the environment wins over the file .env, as in compose.
dot_env() {
  if [[ -n ${!1+set} ]]; then
    echo "${!1}"
  else
    setting_in .env "$1"
  fi
}

# containers [SERVICE]: the ids of the running ones. Asks the engine, for docker-compose takes half a second to start.
containers() {
  docker ps -q --filter "label=com.docker.compose.project=$(dot_env COMPOSE_PROJECT_NAME)" \
    ${1:+--filter "label=com.docker.compose.service=$1"}
}
