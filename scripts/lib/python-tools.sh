# shellcheck shell=bash
# Tools from the Python package index, each in its own folder below .run/.

# Sends a running ingest what its OpenAPI description allows, and what it does not.
SCHEMATHESIS_VERSION=4.32.5

python_packages() {
  have python3 || echo python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

# Sets SCHEMATHESIS to the program, for the tests. Without it one of them is skipped; in CI that is a failure.
find_schemathesis() {
  if [[ -n ${SCHEMATHESIS:-} ]]; then return; fi
  if find_python_tool schemathesis "$SCHEMATHESIS_VERSION" "the API is not checked against its description"; then
    export SCHEMATHESIS=$FOUND/st
  fi
}

# find_python_tool NAME VERSION OTHERWISE: sets FOUND to the folder of its programs.
find_python_tool() {
  local folder=$RUN_DIR/$1-$2
  if [[ ! -e $folder/complete ]] && ! (install_python_tool "$folder" "$1" "$2"); then
    [[ ${CI:-} != true ]] || fail "$1 is not available: $3"
    warn "$1 is not available: $3"
    return 1
  fi
  FOUND=$folder/bin
}

install_python_tool() {
  local folder=$1
  install_missing python_packages
  rm -rf "$folder"
  quietly "installing $2" "$RUN_DIR/logs/$2.log" install_with_pip "$folder" "$2==$3" || exit 1
}

install_with_pip() {
  local retries=1
  # Without it a run of CI fails, whereas a person would rather not wait.
  if [[ ${CI:-} == true ]]; then retries=5; fi
  python3 -m venv "$1" && "$1/bin/pip" install --quiet --retries "$retries" "$2" && touch "$1/complete"
}
