# shellcheck shell=bash
# What the other scripts share; sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The build folder: everything that set-up fetches or makes is below it, but for packages that apt installs.
build=${CARGO_TARGET_DIR:-$root/target}
tools=$build/tools
export PATH="$tools/bin:$PATH"

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command silently; its output is shown when it fails.
quietly() {
  local log
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then rm -f "$log"; else
    tail -n 30 "$log" >&2
    rm -f "$log"
    die "failed: $*"
  fi
}

# Fetches apt's package lists, once a script: old ones name packages that the mirror has dropped, new systems have none.
fresh_lists() {
  [ -z "${lists_are_fresh:-}" ] || return 0
  quietly apt-get update
  lists_are_fresh=1
}

# Installs those of the named Debian packages that are missing.
packages() {
  local package missing=()
  for package; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  have apt-get || die "please install, this is no Debian: ${missing[*]}"
  [ "$(id -u)" = 0 ] || die "please run as root: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  fresh_lists
  quietly apt-get install -y --no-install-recommends "${missing[@]}"
}

# The mirror of Debian that apt already uses.
# shellcheck disable=SC2016 # apt expands these
debian_mirror() {
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "Debian" && !seen++ { print $3 }'
}

# newest FOLDER PACKAGE...: unpacks packages of Debian's newest suite into a folder, installing nothing.
newest() (
  set -e
  folder=$1
  shift
  apt=$tools/apt
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$folder"
  mirror=$(debian_mirror)
  if [ -z "$mirror" ]; then
    fresh_lists
    mirror=$(debian_mirror)
  fi
  [ -n "$mirror" ] || die "apt knows no mirror of Debian to fetch $* from"
  keyring=
  for file in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
    [ ! -e "$file" ] || keyring="[signed-by=$file]"
  done
  echo "deb $keyring $mirror ${DEBIAN_SUITE:-sid} main" >"$apt/sources.list"
  # Signatures are checked, dates are not: a Pi without a clock and a mirror that lags are no reason to fail.
  options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::Lists=$apt/lists"
    -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false)
  say "fetching $* from Debian ${DEBIAN_SUITE:-sid}"
  quietly apt-get "${options[@]}" update
  download=$(mktemp -d)
  trap 'rm -rf "$download"' EXIT
  cd "$download" || exit
  quietly apt-get "${options[@]}" download "$@"
  for file in *.deb; do dpkg -x "$file" "$folder"; done
)

# The Compose project's name.
project_name() { "$root/scripts/compose" config --format json | sed -n 's/^  "name": "\(.*\)",$/\1/p'; }

# Whether the Engine that the environment points at answers.
engine_answers() { have docker && timeout 20 docker version >/dev/null 2>&1; }
