# shellcheck shell=bash
# Finds PostgreSQL and RabbitMQ of this machine, and installs by apt what is missing where that is allowed.

LOWEST_RABBITMQ=3.10 LOWEST_POSTGRES=14

# find_postgres [VERSION]: the folder of PostgreSQL's programs, the newest or that of the major version given. POSTGRES_BIN
# names the only one that is looked at.
find_postgres() {
  local folder best='' best_version=0 version
  for folder in ${POSTGRES_BIN:-/usr/lib/postgresql/*/bin /usr/pgsql-*/bin}; do
    [[ -x $folder/initdb && -x $folder/postgres ]] || continue
    version=$("$folder/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
    if [[ -n ${1:-} && $version != "$1" ]]; then continue; fi
    if [[ $version -gt $best_version ]]; then best=$folder best_version=$version; fi
  done
  [[ -n $best ]] && echo "$best"
}

# The script of the package itself: the one in /usr/sbin runs as root or as rabbitmq only.
find_rabbitmq() {
  local script=${RABBITMQ_SERVER:-/usr/lib/rabbitmq/bin/rabbitmq-server}
  [[ -x $script ]] && echo "$script"
}

server_packages() {
  find_postgres "" >/dev/null || echo postgresql
  find_rabbitmq >/dev/null || echo rabbitmq-server
}

# The servers' packages, in versions that the pipeline works with; what is too old is not installed first.
provide_servers() {
  local package rabbitmq folder
  for package in $(server_packages); do
    case $package in
      postgresql) require_version PostgreSQL "$(offered "$package")" "$LOWEST_POSTGRES" ;;
      *) require_version RabbitMQ "$(offered "$package")" "$LOWEST_RABBITMQ" ;;
    esac
  done
  install_missing server_packages
  rabbitmq=$(find_rabbitmq) folder=$(find_postgres "")
  require_version RabbitMQ "$("${rabbitmq%-server}ctl" version)" "$LOWEST_RABBITMQ"
  require_version PostgreSQL "$("$folder/postgres" --version | sed 's/^[^0-9]*//')" "$LOWEST_POSTGRES"
}

# offered PACKAGE: the version that apt would install, without what Debian puts before and behind it.
offered() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p'; }

# require_version NAME VERSION LOWEST: an empty version is not known.
require_version() {
  [[ -z $2 ]] || at_least "$2" "$3" ||
    fail "$1 is $2 here, and the pipeline needs $3 or newer: install that, $WAY_OUT"
}

build_packages() {
  # jemalloc is built by make.
  { have cc && have make; } || echo build-essential
  have curl || echo curl
  [[ -e /etc/ssl/certs/ca-certificates.crt || -n ${SSL_CERT_FILE:-} ]] || echo ca-certificates
}

# The proxies and the pooler that the pipeline is tried behind, which Debian keeps from the path of ordinary users.
missing_proxies() {
  local proxy
  for proxy in nginx haproxy pgbouncer; do
    have "$proxy" || [[ -x /usr/sbin/$proxy ]] || echo "$proxy"
  done
}

# The fault suite sets clocks wrong with it. It is no reason to fail: those cases are skipped then.
install_faketime() {
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null && return
  have apt-get && (install_packages libfaketime) && return
  say "libfaketime is missing: the fault cases with wrong clocks are skipped"
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
  have cargo ||
    fail "cargo is missing: install Rust from https://rustup.rs (rust-toolchain.toml names the version), $WAY_OUT"
  cargo --version >/dev/null ||
    fail "cargo cannot use the toolchain of rust-toolchain.toml. Install it with: rustup toolchain install"
}
