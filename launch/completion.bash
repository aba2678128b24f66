# Completion of launch.sh in bash: eval "$(./launch.sh completion bash)"
_canon_launch() {
  local line=${COMP_LINE:0:COMP_POINT} current prefix
  local -a words
  read -ra words <<<"$line"
  [[ $line != *[[:space:]] ]] || words+=('')
  current=${words[${#words[@]} - 1]}
  mapfile -t COMPREPLY < <(@PYTHON@ -E @ROOT@/launch/complete.py "${words[@]:1}" 2>/dev/null)
  # Readline breaks words at = and :, and replaces only what follows the last of them.
  if [[ $current == *[:=]* && $COMP_WORDBREAKS == *[:=]* ]]; then
    prefix=${current%"${current##*[:=]}"}
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
  fi
  # A value, a file, a key or :ARG may follow.
  [[ ${COMPREPLY[0]-} != *[=/.] && ${COMPREPLY[0]-} != *.py ]] || compopt -o nospace 2>/dev/null
}
complete -o default -F _canon_launch launch.sh
