# Completion of launch.sh in zsh: eval "$(./launch.sh completion zsh)"
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_canon_launch() {
  local -a candidates open
  candidates=("${(@f)$(@PYTHON@ -E @ROOT@/launch/complete.py "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  open=("${(@M)candidates:#*([=/.]|.py)}") # a value, a file, a key or :ARG may follow
  candidates=("${(@)candidates:#*([=/.]|.py)}")
  (( $#open )) && compadd -S '' -- $open
  (( $#candidates )) && compadd -- ${candidates:#}
  (( $#open || ${#candidates:#} )) || _files
}
compdef _canon_launch launch.sh
