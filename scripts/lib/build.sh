# shellcheck shell=bash
# The four processes and the commands dead-letters and status, built on this machine.

build_binaries() {
  require_rust
  install_missing build_packages
  quietly "building the binaries (minutes, the first time)" "$RUN_DIR/logs/build.log" \
    cargo build --release --locked --bins || exit 1
}

# Where cargo puts them.
binary() { echo "${CARGO_TARGET_DIR:-$ROOT/target}/release/$1"; }
