# shellcheck shell=bash
# What the running pipeline does, as the command status (scripts/lib/status) says it. MODE is host or containers.

# show_view [--line]: takes 2 s. On a terminal it is drawn over the one before, cut to the width, for a line that wraps could not
# be drawn over. What was started again since comes above it.
DRAWN=0 # lines
show_view() {
  local view
  # That something is to be looked at is in the view.
  view=$("${MODE}_status" "$@" || true)
  if [[ -t 1 ]]; then
    view=$(cut -c "-$(terminal_width)" <<<"$view")
    if [[ $DRAWN -gt 0 ]]; then printf '\033[%dA\033[J' "$DRAWN"; fi
    DRAWN=$(wc -l <<<"$view")
  fi
  "${MODE}_events"
  say "$view"
}

# Asked of the terminal itself, for the output of a substitution is none.
terminal_width() {
  local width=0
  { read -r _ width < <(stty size </dev/tty); } 2>/dev/null || true
  echo $((width > 0 ? width : 120))
}
