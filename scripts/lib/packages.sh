# shellcheck shell=bash
# Finds PostgreSQL and RabbitMQ of this machine, and installs by apt what is missing where that is allowed.

# find_postgres [VERSION]: the folder of PostgreSQL's programs, the newest or that of the major version given.
find_postgres() {
  local folder best='' best_version=0 version
  for folder in ${POSTGRES_BIN:+"$POSTGRES_BIN"} /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [[ -x $folder/initdb && -x $folder/postgres ]] || continue
    version=$("$folder/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
    if [[ -n ${1:-} && $version != "$1" ]]; then continue; fi
    if [[ $version -gt $best_version ]]; then best=$folder best_version=$version; fi
  done
  [[ -n $best ]] && echo "$best"
}

# The script of the package itself: the one in /usr/sbin runs as root or as rabbitmq only.
find_rabbitmq() {
  local script
  for script in ${RABBITMQ_SERVER:+"$RABBITMQ_SERVER"} /usr/lib/rabbitmq/bin/rabbitmq-server; do
    if [[ -x $script ]]; then
      echo "$script"
      return
    fi
  done
  return 1
}

server_packages() {
  find_postgres "" >/dev/null || echo postgresql
  find_rabbitmq >/dev/null || echo rabbitmq-server
}

build_packages() {
  # jemalloc is built by make.
  { have cc && have make; } || echo build-essential
  have curl || echo curl
  [[ -e /etc/ssl/certs/ca-certificates.crt || -n ${SSL_CERT_FILE:-} ]] || echo ca-certificates
}

# The fault suite sets clocks wrong with it. It is no reason to fail: those cases are skipped then.
install_faketime() {
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null && return
  have apt-get && (install_packages libfaketime) && return
  say "libfaketime is missing: no clock will be off"
}

# install_missing LIST...: what the functions named print.
install_missing() {
  local list packages
  mapfile -t packages < <(for list in "$@"; do "$list"; done)
  [[ ${#packages[@]} -eq 0 ]] || install_packages "${packages[@]}"
}

install_packages() {
  local command=("$ROOT/scripts/lib/apt-install" "$@")
  have apt-get || fail "missing here: $*. Install them with the package manager of this system."
  if [[ $EUID -ne 0 ]]; then
    sudo -n true 2>/dev/null ||
      fail "missing here: $*. Install them with: sudo apt-get install $* (their services need not run)"
    command=(sudo -n "${command[@]}")
  fi
  make_run_dir
  quietly "installing $*" "$RUN_DIR/logs/apt.log" "${command[@]}" || fail "could not install $*"
}

# rustup leaves it to the next login to put this into the path.
find_cargo() {
  if ! have cargo && [[ -x ${HOME:-}/.cargo/bin/cargo ]]; then PATH=$HOME/.cargo/bin:$PATH; fi
}

require_rust() {
  find_cargo
  have cargo || fail "cargo is missing. Install Rust from https://rustup.rs (rust-toolchain.toml names the version)," \
    "or a container engine that can pull images."
  cargo --version >/dev/null ||
    fail "cargo cannot use the toolchain of rust-toolchain.toml. Install it with: rustup toolchain install"
}
