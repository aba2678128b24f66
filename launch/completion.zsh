# Completion of launch.sh in zsh: eval "$(./launch.sh completion zsh)"
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_canon_launch() {
  local -a found open
  found=("${(@f)$(@PYTHON@ -E @ROOT@/launch/complete.py "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  open=("${(@M)found:#*([=/.]|.py)}") # a value, a file, a key or :ARG may follow
  found=("${(@)found:#*([=/.]|.py)}")
  (( $#open )) && compadd -S '' -- $open
  (( $#found )) && compadd -- ${found:#}
  (( $#open || ${#found:#} )) || _files
}
compdef _canon_launch launch.sh
