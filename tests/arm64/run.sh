#!/usr/bin/env bash
# Proves that a bundle gives the same vectors on ARM64 as on x86-64:
#
#     bash tests/arm64/run.sh BUNDLE [PROOF]
#
# Each variant on each engine has to pass its self-test and to embed a dozen images on both, and the vectors have to
# agree as `byol-edge validate --vectors` demands. python, with byol-edge and OpenVINO, is the one in PATH.
#
# On x86-64, qemu emulates ARM64, so no time means anything. Nothing is installed: qemu and an ARM64 Python are unpacked
# from Debian's packages, pip fetches what the device install takes there. They stay in .arm64/, or where
# BYOL_EDGE_ARM64 says, for the next run. The CPU is that of a Raspberry Pi 5, or with QEMU_CPU=cortex-a72 of a Pi 4.
#
# PROOF is a folder where the vectors are kept. Its images/ are embedded instead of drawn ones, if it has any. On ARM64
# itself, the vectors are compared with those that PROOF holds from x86-64; without these, the self-test is all.
#
# Exits 0 where it is proved, 1 where something fails, 2 without BUNDLE, and 77, with a line, where it cannot be tried.
set -euo pipefail

# Whose qemu runs numpy, ONNX Runtime and OpenVINO: the 7.2 of the release before crashes.
release=trixie python=python3.13
device=(libc6 libgcc-s1 libstdc++6 "$python-minimal" "lib$python-minimal" "lib$python-stdlib" libexpat1 libffi8
  zlib1g libbz2-1.0 liblzma5)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
cache=${BYOL_EDGE_ARM64:-$source/.arm64}
cpu=${QEMU_CPU:-cortex-a76}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { echo "arm64: $*"; }
skip() {
  say "skipped: $*"
  exit 77
}

# quiet COMMAND...: keeps what it prints in $work/log.
quiet() { "$@" >"$work/log" 2>&1; }

# unpack_debian: qemu and a Python for ARM64 in $cache/debian.
unpack_debian() {
  local mirror apt part=$work/debian
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || skip "needs apt-get and dpkg-deb"
  mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
    head -n 1 | tr -d ' ') || true
  [ -n "$mirror" ] || skip "apt is not set up for Debian here, whose packages have qemu"
  [ -e "$keyring" ] || skip "needs $keyring, of Debian's package debian-archive-keyring"
  say "unpacking qemu and an ARM64 Python from Debian $release"
  # A state of its own: what is installed here, and apt's own lists, are left alone.
  apt=(apt-get -q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$work/lists" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/apt"
    -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o "APT::Sandbox::User=$(id -un)")
  echo "deb [arch=amd64,arm64 signed-by=$keyring] $mirror $release main" >"$work/sources.list"
  mkdir -p "$work/lists/partial" "$work/apt/archives/partial" "$work/packages" "$part/root"
  : >"$work/status"
  quiet "${apt[@]}" update --error-on=any || skip "Debian's list of packages: $(grep ^E: "$work/log" | head -n 1)"
  (cd "$work/packages" && quiet "${apt[@]}" download qemu-user:amd64 "${device[@]/%/:arm64}") ||
    skip "Debian's packages: $(grep ^E: "$work/log" | head -n 1)"
  for package in "$work"/packages/*_arm64.deb; do dpkg-deb -x "$package" "$part/root"; done
  ln -s usr/lib "$part/root/lib" # where programs look for the loader
  dpkg-deb --fsys-tarfile "$work"/packages/qemu-user_*.deb | tar x -C "$part" --strip-components=3 ./usr/bin/qemu-aarch64
  mkdir -p "$cache" && rm -rf "$cache/debian" && mv "$part" "$cache/debian"
}

# fetch_wheels: what the device install takes on ARM64, in $libraries.
fetch_wheels() {
  local requirements platforms
  mapfile -t requirements < <(python - "$source/pyproject.toml" <<'PYTHON'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["openvino"], sep="\n")
PYTHON
  )
  libraries=$cache/libraries-$(printf '%s\n' "$release" "${requirements[@]}" | sha256sum | cut -c 1-12)
  [ ! -e "$libraries" ] || return 0
  say "fetching wheels for ARM64: ${requirements[*]}"
  mapfile -t platforms < <(printf -- '--platform=manylinux_2_%d_aarch64\n' {17..41})
  install --only-binary=:all: --python-version "${python#python}" "${platforms[@]}" --platform=manylinux2014_aarch64 \
    --target "$work/libraries" "${requirements[@]}"
  mkdir -p "$cache" && rm -rf "$cache"/libraries-* && mv "$work/libraries" "$libraries"
}

# install PIP'S ARGUMENTS...: a failure without a network is no failure of what is to be proved.
install() {
  quiet python -m pip install -q --no-compile "$@" && return
  ! grep -qiE 'connection|timed? ?out|name resolution' "$work/log" || skip "pip reaches no network"
  cat "$work/log" >&2
  exit 1
}

# embed_there IMAGES OUT: runs embed.py on an emulated device, with an environment of its own.
embed_there() {
  env -i PATH=/usr/bin QEMU_CPU="$cpu" PYTHONPATH="$work/package:$libraries" \
    "$cache/debian/qemu-aarch64" -L "$cache/debian/root" "$cache/debian/root/usr/bin/$python" \
    "$here/embed.py" "$bundle" "$1" "$2"
}

[ $# -ge 1 ] && [ -f "$1/manifest.json" ] || { sed -n 2,4p "$0" >&2 && exit 2; }
bundle=$(realpath "$1")
proof=$(realpath -m "${2:-$work/proof}")
mkdir -p "$proof"
[ -e "$proof/images" ] || python "$here/images.py" "$proof/images"

failed=0
if [ "$(uname -sm)" = "Linux aarch64" ]; then
  rm -f "$proof"/aarch64/*.npz
  python "$here/embed.py" "$bundle" "$proof/images" "$proof/aarch64" || failed=1
  [ -e "$proof/x86_64" ] || { say "no vectors of x86-64 to compare with" && exit "$failed"; }
elif [ "$(uname -sm)" = "Linux x86_64" ]; then
  say "self-test and vectors on x86-64"
  rm -f "$proof"/{x86_64,aarch64}/*.npz
  python "$here/embed.py" "$bundle" "$proof/images" "$proof/x86_64" || failed=1
  [ -e "$cache/debian" ] || unpack_debian
  fetch_wheels
  install --no-deps --target "$work/package" "$source"
  say "the same on ARM64, by $("$cache/debian/qemu-aarch64" --version | head -n 1) as $cpu"
  embed_there "$proof/images" "$proof/aarch64" || failed=1
else
  skip "needs Linux on x86-64 or ARM64, and this is $(uname -sm)"
fi
python "$here/compare.py" "$proof/x86_64" "$proof/aarch64" || failed=1
exit "$failed"
