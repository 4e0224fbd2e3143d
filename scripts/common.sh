# Shared by the scripts: where we are, how we speak, how we get packages. Sourced, never run.
# shellcheck shell=bash
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv"
cd "$ROOT"

# System tests that take minutes: make test-full has them, so that make test keeps to its ten.
SLOW_SYSTEM_TESTS=(
  tests/system/network/hosted tests/system/network/ovs tests/system/smartnic
  tests/system/daemon/test_cable.py tests/system/hypervisor/test_nbd.py tests/system/hypervisor/test_plugging.py
)

# About half of the others, by the time that they take: make test runs them after the unit tests, the rest beside those.
SECOND_HALF=(tests/system/daemon tests/system/hypervisor)

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# What each purpose needs, by Debian's and Ubuntu's package names, then by Homebrew's.
apt_packages() {
  case "$1" in
    run) echo python3-venv qemu-system-arm qemu-utils qemu-efi-aarch64 passt nftables openssh-client ca-certificates ;;
    build) echo debian-archive-keyring qemu-user-static e2fsprogs dosfstools mtools fdisk zstd uidmap ;;
    test) echo curl procps iproute2 openssl faketime hwloc-nox dnsmasq-base busybox-static openvswitch-switch ;;
    bench) echo gcc libc6-dev ;;
  esac
}
brew_packages() {
  case "$1" in
    run) echo python@3.13 qemu ;;
    *) ;;
  esac
}

missing_apt() {
  local name
  for name in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || echo "$name"
  done
}

# Root and CI are not asked: there the caller's wish is plain.
may_install() {
  [ "$(id -u)" = 0 ] && return 0
  [ -n "${CI:-}" ] && return 0
  [ -t 0 ] || fail "not a terminal to ask on: run this first, then again: $*"
  printf 'Run this now?\n    %s\n[Y/n] ' "$*"
  local answer
  read -r answer
  case "$answer" in "" | y | Y | yes) return 0 ;; *) fail "then please run it yourself: $*" ;; esac
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
  local purpose wanted=() missing
  if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    for purpose in "$@"; do
      # shellcheck disable=SC2207
      wanted+=($(apt_packages "$purpose"))
    done
    missing=$(missing_apt "${wanted[@]}" | tr '\n' ' ')
    [ -n "${missing// /}" ] || return 0
    say "These packages are missing and will be installed with apt: $missing"
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo "
    may_install "${sudo}apt-get update && ${sudo}apt-get install $missing"
    as_root apt-get update -qq
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
  elif command -v brew >/dev/null; then
    for purpose in "$@"; do
      # shellcheck disable=SC2207
      wanted+=($(brew_packages "$purpose"))
    done
    missing=""
    local name
    for name in "${wanted[@]}"; do brew list --versions "$name" >/dev/null 2>&1 || missing+="$name "; done
    [ -n "${missing// /}" ] || return 0
    say "These packages are missing and will be installed with Homebrew: $missing"
    may_install "brew install $missing"
    # shellcheck disable=SC2086
    brew install -q $missing
  else
    say "No apt and no Homebrew here: please see that QEMU (qemu-system-aarch64, qemu-img), its Arm UEFI firmware and Python 3.11 are installed"
  fi
}

# A root daemon starts QEMU as this user, which owns nothing and may do nothing.
make_qemu_user() {
  [ "$(id -u)" = 0 ] && [ "$(uname)" = Linux ] || return 0
  id carmel-qemu >/dev/null 2>&1 && return 0
  say "Making the system user carmel-qemu, as which QEMU will run"
  useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin --user-group carmel-qemu
}

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python3.14; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  fail "Carmel needs Python 3.11 or newer, and there is none here"
}

# One environment in the checkout, made anew when the lock file changes. The lock holds a hash of every file.
make_venv() {
  local lock="$1" stamp="$VENV/.carmel-lock" want
  want=$(cat "$ROOT/pyproject.toml" "$ROOT/$lock" | openssl_or_shasum)
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$lock $want" ]; then return; fi
  # Tests need more than the demo: their environment serves both.
  if [ "$lock" = requirements.lock ] && [ -f "$stamp" ] && grep -q '^requirements-dev.lock ' "$stamp"; then
    want=$(cat "$ROOT/pyproject.toml" "$ROOT/requirements-dev.lock" | openssl_or_shasum)
    if [ "$(cat "$stamp")" = "requirements-dev.lock $want" ]; then return; fi
  fi
  say "Installing the Python packages of $lock into .venv"
  local python
  python=$(find_python)
  [ -x "$VENV/bin/python" ] || "$python" -m venv "$VENV"
  "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable "$ROOT"
  echo "$lock $want" >"$stamp"
}

openssl_or_shasum() {
  if command -v sha256sum >/dev/null; then sha256sum | cut -d' ' -f1; else shasum -a 256 | cut -d' ' -f1; fi
}

# Tests run in two lanes, a processor each, and in neither more than one QEMU is busy. start_lane COMMAND...: the second;
# what it prints is kept for end_lane.
start_lane() {
  LANE_REPORT="$(mktemp)"
  # A process group of its own: else it would ignore the interrupt that lets its tests clean up.
  set -m
  (set -e; "$@") >"$LANE_REPORT" 2>&1 &
  LANE=$!
  set +m
  trap '{ kill -INT -- "-$LANE" && wait "$LANE"; } 2>/dev/null || true; rm -f "$LANE_REPORT"' EXIT
  trap 'exit 143' TERM
}

end_lane() {
  local status=0
  wait "$LANE" || status=$?
  # Its number may be another's from now on.
  trap - EXIT TERM
  cat "$LANE_REPORT"
  rm -f "$LANE_REPORT"
  return "$status"
}
