# shellcheck shell=bash
# Chooses an image for each variable of the compose file: what the environment says, else the official image if it is here or
# can be pulled, else a stand-in that deploy/base-images builds. The choice is kept in .run/images.env, so that a registry that
# cannot be reached is tried once a day; delete that file to have the images chosen again at once.

CHOICES=$RUN_DIR/images.env
OPTIONAL_SERVICES=(zipkin prometheus grafana) # each has a profile of its own name
PULL_PATIENCE=${PULL_PATIENCE:-60}            # seconds without output from the engine
UNREACHED=' '                                 # registries that did not answer in this run
HINTED=''

# That of the compose file, with its digest where it has one.
official_image() { sed -nE "s/.*\\\$\{$1:-([^}]+)\}.*/\1/p" deploy/compose.yaml | sed -n 1p; }

stand_in() {
  case $1 in
    RUST_IMAGE) echo callback-pipeline/rust:backports ;;
    RABBITMQ_IMAGE) echo callback-pipeline/rabbitmq:4.3 ;;
    POSTGRES_IMAGE) echo callback-pipeline/postgres:18 ;;
    PROMETHEUS_IMAGE) echo callback-pipeline/prometheus:2 ;;
  esac
}

# choose_images VARIABLE...: exports each.
choose_images() {
  local variable
  make_run_dir
  for variable in "$@"; do
    export_image "$variable" ||
      fail "no image for $variable: give one ($variable=...), or run without containers (ENGINE=none)"
  done
}

# export_image VARIABLE: fails when no image can be had.
export_image() {
  local variable=$1 image
  # A given image is used as it is; the engine says so if it is not available.
  image=$(dot_env "$variable")
  if [[ -z $image ]]; then
    image=$(chosen_image "$variable")
    if ! is_named "$variable" "$image" || is_stale "$variable" || ! is_here "$image"; then
      choose_image "$variable" || return
      image=$(chosen_image "$variable")
    fi
  fi
  export "$variable=$image"
}

chosen_image() { setting_in "$CHOICES" "$1"; }
is_here() { docker image inspect "$1" >/dev/null 2>&1; }

# The compose file may have been given another version since.
is_named() { [[ $2 == "$(official_image "$1")" || (-n $2 && $2 == "$(stand_in "$1")") ]]; }

# On another day an image that could not be pulled is tried again, unless the pipeline runs with its stand-in.
is_stale() {
  [[ $(chosen_image "$1") == @(none|callback-pipeline/*) && $(setting_in "$CHOICES" "$1_CHOSEN") != "$(date +%F)" &&
    -z $(containers) ]]
}

choose_image() {
  local image
  image=$(official_image "$1")
  if is_here "$image" || pull "$image"; then
    remember "$1" "$image"
  else
    build_stand_in "$1" "$image"
  fi
}

remember() {
  local others
  others=$(grep -vE "^$1(_CHOSEN)?=" "$CHOICES" 2>/dev/null || true)
  printf '%s\n' ${others:+"$others"} "$1=$2" "$1_CHOSEN=$(date +%F)" >"$CHOICES"
}

build_stand_in() {
  local image builds
  image=$(stand_in "$1")
  [[ -n $image ]] || return
  say "$2 is not available: using the stand-in $image, built from Debian's packages"
  if ! is_here "$image"; then
    builds=${image#callback-pipeline/}
    interruptible deploy/base-images/build "${builds%%:*}" || return
  fi
  remember "$1" "$image"
  if [[ -z $HINTED ]]; then say "(it is tried again tomorrow, or when .run/images.env is deleted)"; fi
  HINTED=yes
}

# pull IMAGE: gives up soon when the registry does not answer, but a download that runs may take its time.
pull() {
  local image=$1 registry cause log=$RUN_DIR/logs/pull.log
  registry=$(registry_of "$image")
  if [[ $UNREACHED == *" $registry "* ]]; then return 1; fi
  say "pulling $image"
  : >"$log"
  if interruptible pull_with_patience "$image" "$log"; then return; fi
  # The last part of the message is its cause.
  cause=$(tail -n 1 "$log" | tr -d '\r' | sed 's/^.*: //')
  if grep -qE 'toomanyrequests|429 Too Many' "$log"; then
    cause="this is over the rate limit of $registry, which passes; docker login raises it"
  fi
  warn "cannot pull $image: $cause"
  if ! registry_answered "$log"; then UNREACHED+="$registry "; fi
  return 1
}

pull_with_patience() {
  local puller lines=-1 heard end=0
  docker pull "$1" >"$2" 2>&1 &
  puller=$!
  while kill -0 "$puller" 2>/dev/null && ! registry_answered "$2"; do
    # An engine that says something is at work.
    heard=$(wc -l <"$2")
    if [[ $heard -ne $lines ]]; then lines=$heard end=$((SECONDS + PULL_PATIENCE)); fi
    if [[ $SECONDS -ge $end ]]; then
      kill "$puller"
      echo "no answer within $PULL_PATIENCE s" >>"$2"
      break
    fi
    sleep 0.2
  done
  wait "$puller"
}

# What Docker and Podman print once they have an answer, a refusal included.
registry_answered() {
  grep -qE 'Pulling |Getting image source|Copying |toomanyrequests|denied|manifest unknown' "$1"
}

# The first part of a name is a registry when it looks like a host.
registry_of() {
  local first=${1%%/*}
  if [[ $1 == */* && $first == *[.:]* ]]; then echo "$first"; else echo docker.io; fi
}

# Everything that `compose up` needs.
prepare_compose() {
  choose_profiles
  choose_images RABBITMQ_IMAGE POSTGRES_IMAGE RUST_IMAGE
  copy_certificates
}

# The build trusts whom this host trusts, for networks whose proxy inspects TLS.
copy_certificates() {
  local bundle copy=deploy/ca-certificates/host.crt
  for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    if [[ -s $bundle ]]; then
      cmp -s "$bundle" "$copy" || cp "$bundle" "$copy"
      return
    fi
  done
}

# For the compose commands that need no image: what was chosen before, unlooked at.
use_choices() {
  local variable image profile profiles=''
  for variable in RABBITMQ_IMAGE POSTGRES_IMAGE RUST_IMAGE ZIPKIN_IMAGE PROMETHEUS_IMAGE GRAFANA_IMAGE; do
    image=$(chosen_image "$variable")
    if [[ -z $(dot_env "$variable") && -n $image && $image != none ]]; then export "$variable=$image"; fi
  done
  for profile in $(wanted_profiles); do
    if ! left_out "$profile"; then profiles+=${profiles:+,}$profile; fi
  done
  use_profiles "$profiles"
}

# The profiles of COMPOSE_PROFILES, those of several services taken apart.
wanted_profiles() {
  dot_env COMPOSE_PROFILES | tr , '\n' | sed 's/^observability$/prometheus\ngrafana/' | awk 'NF && !seen[$1]++ { print $1 }'
}

is_optional() { [[ " ${OPTIONAL_SERVICES[*]} " == *" $1 "* ]]; }
left_out() { is_optional "$1" && [[ -z $(dot_env "${1^^}_IMAGE") && $(chosen_image "${1^^}_IMAGE") == none ]]; }

# An optional service whose image is not available is left out, by its profile. That is remembered too.
choose_profiles() {
  local profile profiles=''
  make_run_dir
  for profile in $(wanted_profiles); do
    if is_optional "$profile" && { ! left_out "$profile" || is_stale "${profile^^}_IMAGE"; }; then
      export_image "${profile^^}_IMAGE" || remember "${profile^^}_IMAGE" none
    fi
    if left_out "$profile"; then
      say "${profile^} is left out: its image is not available"
    else
      profiles+=${profiles:+,}$profile
    fi
  done
  use_profiles "$profiles"
}

# Without Zipkin spans are made only for a collector that somebody named.
use_profiles() {
  export COMPOSE_PROFILES=$1
  if [[ ,$1, != *,zipkin,* && -z $(dot_env ZIPKIN_URL) ]]; then export ZIPKIN_URL=off; fi
}
