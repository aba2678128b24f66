#!/usr/bin/env bash
# The only entry point: prepares the environment, then runs, tests, sweeps or submits. `./launch.sh help` lists the verbs.
set -euo pipefail

caller=$PWD
export CANON_CALLER=$caller # paths are printed relative to it
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"

main_job=configs/classification/lenet_digits.py
uv_pin='uv==0.13.9'
venv=${CANON_VENV:-.venv}
dry=

# XLA's CPU buffers would be returned to the kernel and faulted in again at every step, which costs a fifth of its time;
# pages of 2 MB (hugetlb) save another tenth.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.mmap_threshold=34359738368:glibc.malloc.trim_threshold=68719476736:glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1}

help() {
  cat <<'END'
./launch.sh [VERB ...]    prepares the environment if needed, then does VERB; --dry prints the commands instead
./launch.sh VERB --help   usage, arguments and examples of VERB; run CONFIG --help lists every key

  (nothing)               the main job: LeNet-5 on the embedded digits
  run CONFIG [FLAGS]      train, or resume a run                --config.key=value --workdir= --runs= --force
  eval CONFIG [FLAGS]     evaluate the best checkpoint, or the last
  predict CONFIG [FLAGS]  --input=FILE|FOLDER|VIDEO|CAMERA_NUMBER --output=DIR
  export CONFIG [FLAGS]   a trained model as StableHLO          --output=DIR
  replay CONFIG --step=N  repeat one step and show it by parameter
  data CONFIG [FLAGS]     draw training batches, and list their keys  --batches=N --stage= --workdir=RUN
  models [FILTER]         every network: parameters, multiply-adds, published figures
  sweep CONFIG [FLAGS]    the points of its sweep(), and lists   --config.seed=0,1,2 --jobs=N --engine=local|slurm|print
  table DIR [FLAGS]       table and figure of the runs below DIR  --metric= --sort= --mean
  compare DIR... [FLAGS]  one page of several runs: curves, settings, pictures  --output=FILE --metric=
  view --workdir=RUN      a radiance field, volume or shape in the browser, rendered as one drags  --port= --input=
  watch [DIR]             TensorBoard on the runs below DIR     --port=
  ledger [FILTER]         compare every :smoke config with its target       --save (into docs/ledger.md)
  bench [NAME ...]        Canon's time next to other libraries'  --torch=PYTHON --list --save (into docs/benchmarks.md)
  docs [FLAGS]            the manual, a folder of HTML           --output=DIR --serve
  prepare NAME            download and prepare a TFDS data set (in .venv-tf, which alone has TensorFlow)
  slurm CONFIG [OPTIONS] [-- FLAGS]   submit to Slurm           --nodes= --tasks= --gpus= --minutes= --wait
  tpu NAME CONFIG [FLAGS] run on every worker of a Cloud TPU VM, each from a clone in ~/canon (not tested here)
  test [--all] [PYTEST]   the fast tests, or all of them, in two processes     PATH...: only these
  lint                    ruff, ruff format, ty
  pins [--upgrade]        update requirements.txt
  completion SHELL        completion for bash or zsh: eval "$(./launch.sh completion bash)"
  help [VERB]             this page, or VERB --help

CONFIG is a file, or FILE:ARG such as configs/classification/lenet_digits.py:smoke

CANON_EXTRAS=cuda12|cuda13|tpu   the accelerator build of JAX     CANON_VENV=DIR      the environment
CANON_PYTHON=python3.12          the Python that creates it       CANON_PREPARE=no    use it as it is
END
}

list_verbs() { help | sed -n 's/^  \([a-z]\+\) .*/\1/p'; }

usage() { # VERB: the help of verbs that are commands of this script alone; it takes no environment
  case $1 in
    tpu)
      cat <<'END'
usage: ./launch.sh tpu NAME CONFIG [FLAGS]

Runs a config on every worker of the Cloud TPU VM NAME, each from a clone in ~/canon. Needs gcloud.

    ./launch.sh tpu my-pod configs/classification/lenet_digits.py --config.seed=1

FLAGS are those of run: ./launch.sh run CONFIG --help
END
      ;;
    test)
      cat <<'END'
usage: ./launch.sh test [--all] [PATH ...] [OPTIONS]

Runs the fast tests in two processes; with --all the slow ones, too; with PATH only these files or folders.

    ./launch.sh test
    ./launch.sh test --all
    ./launch.sh test tests/optim -k adam

OPTIONS go to pytest: -k EXPRESSION, -x, --durations=10 and others.
END
      ;;
    lint)
      cat <<'END'
usage: ./launch.sh lint

Checks the code with ruff, its format with ruff format, and its types with ty; exit status 1 if one has a finding.

    ./launch.sh lint
END
      ;;
    pins)
      cat <<'END'
usage: ./launch.sh pins [--upgrade] [OPTIONS]

Updates requirements.txt after a change of pyproject.toml; --upgrade takes the newest versions.

    ./launch.sh pins --upgrade

OPTIONS go to uv pip compile.
END
      ;;
    completion)
      cat <<'END'
usage: ./launch.sh completion bash|zsh

Prints the completion of verbs, configs, their arguments, flags and keys, for ~/.bashrc or ~/.zshrc:

    eval "$(./launch.sh completion bash)"
    eval "$(./launch.sh completion zsh)"
END
      ;;
  esac
}

fail() { # STATUS MESSAGE
  echo "launch.sh: $2" >&2
  exit "$1"
}

show() { # prints a command with shell quoting
  printf '%q' "$1"
  [[ $# -gt 1 ]] && printf ' %q' "${@:2}"
  echo
}

go() { # the last command replaces this shell, so that it receives the signals and sets the exit status
  if [[ $dry ]]; then show "$@"; else exec "$@"; fi
}

step() { if [[ $dry ]]; then show "$@"; else "$@"; fi; }

# --- the environment ---------------------------------------------------------------------------------------------

find_python() { # one that runs: a pyenv shim on the PATH may have no Python installed
  local name
  for name in ${CANON_PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  fail 1 "needs Python 3.11 or newer with its venv module, and found none as \
${CANON_PYTHON:-python3.13, python3.12, python3.11 or python3} (Debian: apt-get install python3-venv; or set CANON_PYTHON)"
}

pins_now() { echo "$(cat pyproject.toml requirements.txt | cksum) $PWD ${CANON_PYTHON:-any}"; }

real_python() { readlink -f "$1/bin/python" 2>/dev/null; }

ready() { # VENV EXTRA...: whether it exists, made from these pins by this Python, with these extras
  local dir=$1 pins='' python='' extras='' extra
  shift
  [[ -x $dir/bin/python && -f $dir/.stamp ]] || return 1
  { read -r pins && read -r python && read -r extras; } <"$dir/.stamp" || return 1
  [[ $pins == "$(pins_now)" && $python == "$(real_python "$dir")" ]] || return 1
  [[ " $extras " == *' test '* ]] && extras+=' docs slurm trackers'
  for extra; do [[ " $extras " == *" $extra "* ]] || return 1; done
}

accelerators() { printf '%s\n' "$@" | grep -E '^(cuda|tpu)' | sort -u || true; }

install() { # DIR EXTRA...: adds to an environment; replaces one made by another Python or for another accelerator
  local dir=$1 old='' python='' target=. pins
  shift
  pins=$(pins_now)
  [[ -f $dir/.stamp ]] && { read -r _ && read -r python && read -r old; } <"$dir/.stamp"
  # shellcheck disable=SC2086
  if [[ -n $(accelerators "$@") && -n $(accelerators $old) && $(accelerators "$@") != "$(accelerators $old)" ]] ||
    [[ -n $python && $python != "$(real_python "$dir")" ]] || ! "$dir/bin/python" -m pip --version &>/dev/null; then
    old=
    python=$(find_python) || return 1
    [[ -d $dir ]] && step find "$dir" -mindepth 1 -maxdepth 1 ! -name prepare.lock ! -name prepare.log -exec rm -rf {} +
    step "$python" -m venv "$dir" || return 1
  fi
  # shellcheck disable=SC2046,SC2086
  set -- $(printf '%s\n' $old "$@" | sort -u)
  [[ $# -gt 0 ]] && target=".[$(IFS=, && echo "$*")]"
  # uv is ten times as fast as pip, but does not read pip.conf: if it fails, pip may still find the index. Like pip it
  # compiles: where Python may not write bytecode, each process would compile all that it imports, which takes seconds.
  { step "$dir/bin/python" -m pip install -q "$uv_pin" &&
    step "$dir/bin/python" -m uv pip install -q --compile-bytecode --python "$dir/bin/python" -c requirements.txt -e "$target"; } ||
    step "$dir/bin/python" -m pip install -q -c requirements.txt -e "$target" || return 1
  [[ $dry ]] || printf '%s\n%s\n%s\n' "$pins" "$(real_python "$dir")" "$*" >"$dir/.stamp"
}

prepare() { # DIR EXTRA...: once, even if several launches start at the same time
  if [[ ${CANON_PREPARE-} == no ]]; then
    [[ -x $1/bin/python ]] || fail 1 "CANON_PREPARE=no, but $1/bin/python does not exist; set CANON_VENV=DIR"
    return
  fi
  ready "$@" && return
  if [[ $dry ]]; then
    install "$@"
    return
  fi
  mkdir -p "$1"
  (
    if command -v flock >/dev/null; then flock 9; fi
    ready "$@" && exit
    echo "preparing $1, once (log: $1/prepare.log)" >&2
    install "$@" >"$1/prepare.log" 2>&1 9>&- || {
      tail -n 15 "$1/prepare.log" >&2
      fail 1 "could not prepare $1: the lines above give the reason; launch again to continue"
    }
  ) 9>"$1/prepare.lock"  # not .lock, which is uv's own
}

extras() { # the names in CANON_EXTRAS, and all subjects; TensorFlow's environment only prepares data
  local names=" ${CANON_EXTRAS-} "
  names=${names//,/ }
  [[ $names == *' tf '* ]] || names="all$names"
  echo "$names"
}

python() { # MODULE ARG...: in the prepared environment
  # Help needs an environment, but no certain one.
  # shellcheck disable=SC2046
  [[ $help_requested && -x $venv/bin/python ]] || prepare "$venv" $(extras)
  go "$venv/bin/python" -m "$@"
}

# --- paths relative to the caller's directory ------------------------------------------------------------------------------

from_caller() { # a file of the checkout, or else of the caller's directory; CONFIG may end in :ARG
  if [[ ! -e ${1%%:*} && -e $caller/${1%%:*} ]]; then echo "$caller/$1"; else echo "$1"; fi
}

flag() { # --NAME=PATH: makes paths absolute if called from elsewhere; other values only if they exist as files
  local name=${1%%=*} value=${1#*=}
  if [[ $caller == "$PWD" || ${words[0]-} == tpu ]]; then
    echo "$1"
  elif [[ $1 == -*=* && $value != '' && $value != /* && $value != '~'* ]]; then
    case $name in
      --output | --runs) value=$caller/$value ;;
      --workdir) [[ ! -e $caller/$value && -e $value/config.json ]] || value=$caller/$value ;; # a run of the checkout
      --config) value=$(from_caller "$value") ;;
      --input | --config.*path | --config.*dir | --config.*file) [[ ! -e $caller/$value ]] || value=$caller/$value ;;
    esac
    echo "$name=$value"
  elif [[ $1 != -* && $1 =~ \.py(:|$) ]]; then
    from_caller "$1"
  else
    echo "$1"
  fi
}

needs() { # VERB WHAT ARG...: fails unless there is a word that is not a flag, or --help
  local word
  for word in "${@:3}"; do
    case $word in -h | --help | --helpfull | [!-]*) return ;; esac
  done
  fail 2 "$1 needs $2: ./launch.sh $1 $2 ...; ./launch.sh $1 --help says more"
}

# --- the verbs ---------------------------------------------------------------------------------------------------

words=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --dry) dry=yes ;;
    --input | --output | --workdir | --runs | --config | --config.*path | --config.*dir | --config.*file)
      if [[ $# -gt 1 ]]; then # --workdir DIR
        words+=("$(flag "$1=$2")")
        shift
      else
        words+=("$1")
      fi
      ;;
    *) words+=("$(flag "$1")") ;;
  esac
  shift
done
set -- "${words[@]}"

case ${1-} in
  -h | --help) set -- help ;;
  '' | -*) set -- run "$main_job" "$@" ;;
esac
verb=$1
shift

help_requested=
for word in "$@"; do
  [[ $word != -- ]] || break
  [[ $word != -h && $word != --help ]] || help_requested=yes
done
[[ ! $help_requested ]] || case $verb in tpu | test | lint | pins | completion) usage "$verb" && exit ;; esac

main() { # MODE [CONFIG] FLAG...: --workdir=DIR may replace the config
  local words=()
  [[ $# -gt 1 ]] || needs "$verb" CONFIG
  [[ $1 == train ]] || words+=("--mode=$1")
  shift
  if [[ $1 != -* ]]; then
    words=("--config=$(from_caller "$1")" "${words[@]}")
    shift
  fi
  python experiments.main "${words[@]}" "$@"
}

case $verb in
  run) main train "$@" ;;
  eval) main evaluate "$@" ;;
  predict) main predict "$@" ;;
  export) main export "$@" ;;
  replay) main replay "$@" ;;

  sweep | slurm)
    needs "$verb" CONFIG "$@"
    [[ $verb == slurm || " $* " == *' --engine=slurm '* ]] && CANON_EXTRAS="${CANON_EXTRAS-} slurm"
    module=launch.sweep
    [[ $verb == slurm ]] && module=launch.submit
    python $module "$@"
    ;;

  table | compare | watch)
    [[ $verb == watch ]] || needs "$verb" DIR "$@"
    for arg; do
      shift
      if [[ $arg == -* ]]; then set -- "$@" "$arg"; else set -- "$@" "$(from_caller "$arg")"; fi
    done
    python "launch.$verb" "$@"
    ;;

  view) python launch.view "$@" ;;
  data)
    needs data CONFIG "$@"
    python launch.data "$@"
    ;;

  ledger) python launch.ledger "$@" ;;
  models) python launch.models "$@" ;;
  bench) python launch.bench "$@" ;;

  docs)
    CANON_EXTRAS="${CANON_EXTRAS-} docs"
    python launch.docs "$@"
    ;;

  prepare)
    needs prepare NAME "$@"
    if [[ " $* " != *' digits '* && ! $help_requested ]]; then
      venv=${CANON_VENV_TF:-.venv-tf}
      CANON_EXTRAS=tf
    fi
    python launch.prepare "$@"
    ;;

  tpu)
    [[ $# -ge 2 ]] || fail 2 'tpu needs NAME and CONFIG: ./launch.sh tpu NAME CONFIG ...'
    [[ $dry ]] || command -v gcloud >/dev/null || fail 1 'tpu needs the gcloud command, and it is not on the PATH'
    # Each worker prepares its own clone and runs the same command: JAX finds its peers by the pod's metadata.
    go gcloud compute tpus tpu-vm ssh "$1" --worker=all \
      --command="cd ~/canon && CANON_EXTRAS=tpu ./launch.sh $(show run "${@:2}")"
    ;;

  test)
    CANON_EXTRAS="${CANON_EXTRAS-} test"
    workers=(-n 2 --dist loadfile --no-loadscope-reorder) # for the suite; a file or two are faster in one process
    for arg; do
      shift
      [[ $arg == -* || ! -e ${arg%%::*} ]] || workers=()
      if [[ $arg == --all ]]; then set -- "$@" -m ''; else set -- "$@" "$arg"; fi
    done
    python pytest "${workers[@]}" "$@"
    ;;

  lint)
    # shellcheck disable=SC2046
    prepare "$venv" $(extras) test
    step "$venv/bin/python" -m ruff check
    step "$venv/bin/python" -m ruff format --check
    go "$venv/bin/python" -m ty check
    ;;

  pins)
    # shellcheck disable=SC2046
    prepare "$venv" $(extras)
    go "$venv/bin/python" -m uv pip compile -q --universal --no-header --no-annotate --all-extras -p 3.11 \
      pyproject.toml -o requirements.txt "$@"
    ;;

  completion)
    [[ ${1-} == bash || ${1-} == zsh ]] || fail 2 'completion needs a shell: ./launch.sh completion bash|zsh'
    interpreter=python3
    [[ ! -x $venv/bin/python ]] || interpreter=$(cd "$venv/bin" && echo "$PWD/python")
    sed "s|@PYTHON@|$(printf '%q' "$interpreter")|; s|@ROOT@|$(printf '%q' "$PWD")|" "launch/completion.$1"
    ;;

  help)
    [[ ! ${1-} ]] || exec ./launch.sh "$1" --help
    help
    ;;
  *)
    [[ -e ${verb%%:*} || -e $caller/${verb%%:*} ]] && fail 2 "no verb is called '$verb'; did you mean: ./launch.sh run $verb"
    fail 2 "no verb is called '$verb'; there are $(list_verbs | paste -sd, | sed 's/,/, /g')"
    ;;
esac
