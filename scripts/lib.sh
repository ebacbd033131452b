# shellcheck shell=bash
# What the scripts share. Sourced, never run; sets `root`, the folder of this copy of the repository.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

say() { printf '%s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# A path as it is seen from any other folder.
absolute() {
  case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$PWD/$1" ;;
  esac
}

# Rust, as new as Cargo.toml asks for, and the C compiler that two of the dependencies need.
need_rust() {
  command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
  command -v cargo >/dev/null ||
    die "cargo is missing; install Rust as https://rustup.rs says, then open a new terminal."
  local wanted have
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
  have=$(cd "$root" && rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
  [[ $(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1) == "$wanted" ]] ||
    die "rustc is $have and has to be $wanted or newer; run: rustup update stable"
  command -v "${CC:-cc}" >/dev/null ||
    die "a C compiler is missing; run: sudo apt-get install build-essential (on macOS: xcode-select --install)"
}

# Sets WEFT_PYTHON to an interpreter that is new enough.
need_python() {
  local candidate
  if [[ -n ${WEFT_PYTHON:-} ]]; then
    is_new_python "$WEFT_PYTHON" || die "WEFT_PYTHON is $WEFT_PYTHON, which is not Python 3.11 or newer."
    return
  fi
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if is_new_python "$candidate"; then
      export WEFT_PYTHON=$candidate
      return
    fi
  done
  die "Python 3.11 or newer is missing; run: sudo apt-get install python3, or set WEFT_PYTHON to an interpreter."
}

is_new_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Installs the emulator, once for each content of the lock file.
install_azurite() {
  command -v npm >/dev/null || die "npm is missing; install Node.js 20 or newer (https://nodejs.org), then try again."
  [[ $(node -p 'process.versions.node.split(".")[0]') -ge 20 ]] ||
    die "Node.js is $(node --version) and has to be 20 or newer; see https://nodejs.org"
  local stamp=$root/tests/node_modules/.installed
  cmp -s "$root/tests/package-lock.json" "$stamp" && return
  say "installing the storage emulator (Azurite) …"
  npm ci --prefix "$root/tests" --no-audit --no-fund >&2 || die "the storage emulator could not be installed; see above."
  cp "$root/tests/package-lock.json" "$stamp"
}

azurite_bin() { printf '%s\n' "$root/tests/node_modules/.bin/azurite"; }

# Becomes COMMAND…, which gets SIGTERM when this script is killed, where the system can do that. For jobs only.
ends_with_parent() {
  if command -v setpriv >/dev/null; then exec setpriv --pdeathsig TERM -- "$@"; fi
  exec "$@"
}

# start_azurite LOG ARGUMENTS…: starts the emulator on free ports and sets `azurite_pid` and `azurite_connection`.
start_azurite() {
  local log=$1 bin
  shift
  bin=$(azurite_bin)
  # Its own process group: Ctrl-C must reach Weft first, and the emulator when Weft has ended. It is ended by SIGTERM
  # alone, because it loses the last writes otherwise.
  set -m
  ends_with_parent "$bin" --blobPort 0 --queuePort 0 --tablePort 0 --silent --disableTelemetry \
    --skipApiVersionCheck "$@" </dev/null >"$log" 2>&1 &
  azurite_pid=$!
  set +m
  local blob queue table tries
  for ((tries = 0; tries < 300; tries++)); do
    blob=$(listening "$log" Blob) queue=$(listening "$log" Queue) table=$(listening "$log" Table)
    [[ -n $blob && -n $queue && -n $table ]] && break
    kill -0 "$azurite_pid" 2>/dev/null || break
    sleep 0.1
  done
  if [[ -z ${blob:-} || -z ${queue:-} || -z ${table:-} ]]; then
    cat "$log" >&2
    stop_azurite
    return 1
  fi
  # The emulator's account and key are the same everywhere and documented; they open nothing else.
  local account=devstoreaccount1
  local key=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==
  # shellcheck disable=SC2034 # read by the scripts that source this file
  azurite_connection="DefaultEndpointsProtocol=http;AccountName=$account;AccountKey=$key;BlobEndpoint=$blob/$account;QueueEndpoint=$queue/$account;TableEndpoint=$table/$account;"
}

listening() { sed -n "s/^Azurite $2 service is successfully listening at //p" "$1"; }

stop_azurite() {
  [[ -n ${azurite_pid:-} ]] || return 0
  kill -TERM "$azurite_pid" 2>/dev/null || true
  wait "$azurite_pid" 2>/dev/null || true
  azurite_pid=
}
