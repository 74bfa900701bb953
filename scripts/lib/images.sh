# shellcheck shell=bash
# Chooses an image for each variable of the compose file: what the environment says, else the official image if it is here or
# can be pulled, else a stand-in that deploy/base-images builds. The choice is kept in .run/images.env, so that a registry that
# cannot be reached is not tried each time; delete that file to have the images chosen anew.

CHOICES=$RUN_DIR/images.env
UNREACHED=' ' # registries that did not answer in this run
HINTED=''

official_image() {
  case $1 in
    RUNTIME_IMAGE) echo debian:trixie-slim ;;
    RABBITMQ_IMAGE) echo rabbitmq:4-management ;;
    POSTGRES_IMAGE) echo postgres:17 ;;
    RUST_IMAGE) echo rust:1.95-slim-trixie ;;
    ZIPKIN_IMAGE) echo openzipkin/zipkin:3 ;;
  esac
}

stand_in() {
  case $1 in
    RUNTIME_IMAGE) echo callback-pipeline/debian:trixie ;;
    RABBITMQ_IMAGE) echo callback-pipeline/rabbitmq:4 ;;
    POSTGRES_IMAGE) echo callback-pipeline/postgres:17 ;;
  esac
}

# choose_images VARIABLE...: exports each.
choose_images() {
  local variable image
  make_run_dir
  for variable in "$@"; do
    # One that is given is used as it is; the engine says so if it cannot be had.
    image=$(dot_env "$variable")
    if [[ -z $image ]]; then
      image=$(chosen_image "$variable")
      if [[ -z $image ]] || ! is_here "$image"; then
        choose_image "$variable"
        image=$(chosen_image "$variable")
      fi
    fi
    export "$variable=$image"
  done
}

chosen_image() { setting_in "$CHOICES" "$1"; }
is_here() { docker image inspect "$1" >/dev/null 2>&1; }

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
  others=$(grep -v "^$1=" "$CHOICES" 2>/dev/null || true)
  printf '%s\n' ${others:+"$others"} "$1=$2" >"$CHOICES"
}

build_stand_in() {
  local image builds
  image=$(stand_in "$1")
  say "$2 cannot be had: using the stand-in $image, made of Debian's packages"
  if ! is_here "$image"; then
    builds=${image#callback-pipeline/}
    interruptible deploy/base-images/build "${builds%%:*}" ||
      fail "no image for $1: give one ($1=...), or do without containers (ENGINE=none)"
  fi
  remember "$1" "$image"
  if [[ -z $HINTED ]]; then say "(delete .run/images.env to have the registry tried again)"; fi
  HINTED=yes
}

# pull IMAGE: gives up soon when the registry does not answer, but a download that runs may take its time.
pull() {
  local image=$1 registry log=$RUN_DIR/logs/pull.log
  registry=$(registry_of "$image")
  if [[ $UNREACHED == *" $registry "* ]]; then return 1; fi
  say "pulling $image"
  : >"$log"
  if interruptible pull_with_patience "$image" "$log"; then return; fi
  # The last part of the message is its cause.
  warn "cannot pull $image: $(tail -n 1 "$log" | tr -d '\r' | sed 's/^.*: //')"
  if ! registry_answered "$log"; then UNREACHED+="$registry "; fi
  return 1
}

pull_with_patience() {
  local puller end=$((SECONDS + 20))
  docker pull "$1" >"$2" 2>&1 &
  puller=$!
  while kill -0 "$puller" 2>/dev/null && ! registry_answered "$2"; do
    if [[ $SECONDS -ge $end ]]; then
      kill "$puller"
      echo "no answer within 20 s" >>"$2"
    fi
    sleep 0.2
  done
  wait "$puller"
}

# The first line that the engine prints once it has an answer.
registry_answered() { grep -q 'Pulling from' "$1"; }

# The first part of a name is a registry when it looks like a host.
registry_of() {
  local first=${1%%/*}
  if [[ $1 == */* && $first == *[.:]* ]]; then echo "$first"; else echo docker.io; fi
}

# Everything that `compose up` needs, with the binaries where they have to be built on the host.
prepare_compose() {
  choose_zipkin
  choose_images RABBITMQ_IMAGE POSTGRES_IMAGE RUNTIME_IMAGE
  choose_dockerfile
  if [[ $PIPELINE_DOCKERFILE == *prebuilt ]]; then
    build_binaries
    copy_binaries "$RUN_DIR/binaries"
  fi
}

# For the compose commands that need no image: what was chosen before, unlooked at.
use_choices() {
  local variable
  for variable in RABBITMQ_IMAGE POSTGRES_IMAGE RUNTIME_IMAGE PIPELINE_DOCKERFILE; do
    if [[ -z $(dot_env "$variable") && -n $(chosen_image "$variable") ]]; then
      export "$variable=$(chosen_image "$variable")"
    fi
  done
  if [[ $(chosen_image ZIPKIN_IMAGE) == none ]]; then export COMPOSE_PROFILES=; fi
}

# Nothing stands in for Zipkin: it is left out, by the profile that it is in.
choose_zipkin() {
  local image
  if [[ $(dot_env COMPOSE_PROFILES) != *zipkin* || -n $(dot_env ZIPKIN_IMAGE) ]]; then return; fi
  image=$(chosen_image ZIPKIN_IMAGE)
  if [[ -z $image ]]; then
    image=$(official_image ZIPKIN_IMAGE)
    is_here "$image" || pull "$image" || image=none
    remember ZIPKIN_IMAGE "$image"
  fi
  if [[ $image == none ]]; then
    say "Zipkin is left out: its image could not be had"
    export COMPOSE_PROFILES=
  else
    export ZIPKIN_IMAGE=$image
  fi
}

# Without the image of the compiler, the binaries are built here and copied into the runtime image.
choose_dockerfile() {
  local image
  PIPELINE_DOCKERFILE=$(dot_env PIPELINE_DOCKERFILE)
  PIPELINE_DOCKERFILE=${PIPELINE_DOCKERFILE:-$(chosen_image PIPELINE_DOCKERFILE)}
  if [[ -z $PIPELINE_DOCKERFILE ]]; then
    image=$(dot_env RUST_IMAGE)
    image=${image:-$(official_image RUST_IMAGE)}
    PIPELINE_DOCKERFILE=deploy/Dockerfile
    if ! is_here "$image" && ! pull "$image"; then
      say "$image cannot be had: building the binaries on this machine"
      PIPELINE_DOCKERFILE=deploy/Dockerfile.prebuilt
    fi
    remember PIPELINE_DOCKERFILE "$PIPELINE_DOCKERFILE"
  fi
  export PIPELINE_DOCKERFILE
}
