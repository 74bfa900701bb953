# shellcheck shell=bash
# Schemathesis sends a running ingest what its OpenAPI description allows, and what it does not. It is installed from the Python
# package index into a folder below .run/.

SCHEMATHESIS_VERSION=4.32.5

python_packages() {
  have python3 || echo python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

# Sets SCHEMATHESIS to the program, for the tests. Without it one of them is skipped; in CI that is a failure.
find_schemathesis() {
  local folder=$RUN_DIR/schemathesis-$SCHEMATHESIS_VERSION
  if [[ -n ${SCHEMATHESIS:-} ]]; then return; fi
  if [[ ! -e $folder/complete ]] && ! (install_schemathesis "$folder"); then
    if [[ ${CI:-} == true ]]; then fail "the API cannot be checked against its description"; fi
    warn "schemathesis is not available: the API is not checked against its description"
    return
  fi
  export SCHEMATHESIS=$folder/bin/st
}

install_schemathesis() {
  local folder=$1 log=$RUN_DIR/logs/schemathesis.log
  install_missing python_packages
  rm -rf "$folder"
  quietly "installing schemathesis" "$log" install_with_pip "$folder" || exit 1
}

install_with_pip() {
  local retries=1
  # Without it a run of CI fails, whereas a person would rather not wait.
  if [[ ${CI:-} == true ]]; then retries=5; fi
  python3 -m venv "$1" && "$1/bin/pip" install --quiet --retries "$retries" "schemathesis==$SCHEMATHESIS_VERSION" && touch "$1/complete"
}
