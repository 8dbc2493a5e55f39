#!/usr/bin/env bash
#
# Makes sure that this machine has what Forebay is built and tested with; says nothing and changes nothing if it has.
#
#   scripts/bootstrap.sh [build|test|bench]     `build`: only what compiling and running needs; `test` (default): also what
#                                               the tests need; `bench`: all, with a Java compiler for the bench's peers
#
# On Debian and Ubuntu missing packages are installed with apt-get, through sudo unless run by root. Elsewhere they are
# named, and the script exits 1. Rust itself is never installed, only asked for.

set -euo pipefail

say() { printf 'bootstrap: %s\n' "$*" >&2; }

# What was found missing: for people, and as Debian packages.
MISSING=()
PACKAGES=()

main() {
  local what=${1:-test}
  case $what in build | test | bench) ;; *) say "unknown argument \`$what\`; use build, test or bench"; exit 2 ;; esac

  check_system "$what"
  if [ ${#MISSING[@]} -gt 0 ]; then
    say "missing: $(join "${MISSING[@]}")"
    install_packages
    check_system "$what"
    if [ ${#MISSING[@]} -gt 0 ]; then
      say "still missing after the installation: $(join "${MISSING[@]}")"
      exit 1
    fi
  fi
  if ! command -v cargo >/dev/null; then
    say "missing: cargo. Install Rust with rustup (https://rustup.rs), open a new shell, and repeat"
    exit 1
  fi
}

check_system() { # build|test|bench
  MISSING=()
  PACKAGES=()
  need make make command -v make
  # RocksDB is C++, librdkafka C; both are compiled from source, librdkafka with cmake.
  need "a C and C++ compiler" build-essential has_compilers
  need cmake cmake command -v cmake
  need pkg-config pkg-config command -v pkg-config
  # The Rust bindings of RocksDB are made while it is built, by bindgen.
  need "libclang with its headers" libclang-dev has_libclang
  # What librdkafka links to.
  need "OpenSSL's headers" libssl-dev pkg-config --exists openssl
  need "zlib's headers" zlib1g-dev pkg-config --exists zlib
  need "zstd's headers" libzstd-dev pkg-config --exists libzstd
  # For the examples' data, and the servers and tools that come as Python packages.
  need "python3 with pip and venv" "python3 python3-pip python3-venv" python3 -c "import ensurepip, pip, venv"
  if [ "$1" != build ]; then
    # Kafka is downloaded with Maven and run by Java; its test certificates are made with openssl.
    need "Java 17 or newer" JAVA has_java
    need Maven maven command -v mvn
    need "the openssl command" openssl command -v openssl
    need flock util-linux command -v flock
  fi
  if [ "$1" = bench ]; then
    need "a Java compiler" JDK command -v "${JAVA_HOME:+$JAVA_HOME/bin/}javac"
  fi
}

need() { # NAME DEBIAN_PACKAGES CHECK...
  local name=$1 packages=$2
  shift 2
  if ! "$@" >/dev/null 2>&1; then
    MISSING+=("$name")
    # Splitting is meant: one need may take several packages.
    # shellcheck disable=SC2206
    PACKAGES+=($packages)
  fi
}

has_compilers() {
  "${CC:-cc}" --version && "${CXX:-c++}" --version
}

has_libclang() {
  [ -z "${LIBCLANG_PATH:-}" ] || return 0
  any_of /usr/lib/llvm-*/lib/libclang.so* /usr/lib/llvm-*/lib/libclang-[0-9]*.so* /usr/lib/*-linux-gnu/libclang-[0-9]*.so* \
    /usr/lib/libclang.so* /usr/lib64/libclang.so* || return
  # Without clang's own headers bindgen finds no stddef.h; Debian has them in a package of their own.
  any_of /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib/clang/*/include/stddef.h /usr/lib64/clang/*/include/stddef.h
}

any_of() { # PATHS...: patterns that match nothing stand here as they are
  local path
  for path in "$@"; do [ ! -e "$path" ] || return 0; done
  return 1
}

has_java() {
  local version
  version=$("${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1) || return
  # `openjdk version "17.0.15" 2025-04-15`, and 1.8.0_x for what came before 9.
  [[ $version =~ version\ \"([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 17 ]
}

install_packages() {
  local sudo=() package kind i
  if ! command -v apt-get >/dev/null; then
    say "install these with the package manager of this system (in Debian they are called: $(apt_names)), and repeat"
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      say "run as root: apt-get install $(apt_names)"
      exit 1
    fi
    sudo=(sudo)
  fi
  "${sudo[@]}" apt-get -q -o Acquire::Retries=3 update
  # Which Javas there are depends on the release: the newest long-term one that it has.
  for i in "${!PACKAGES[@]}"; do
    case ${PACKAGES[$i]} in JAVA) kind=jre ;; JDK) kind=jdk ;; *) continue ;; esac
    for package in "openjdk-25-$kind-headless" "openjdk-21-$kind-headless" "openjdk-17-$kind-headless"; do
      if LC_ALL=C apt-cache policy "$package" | grep -q 'Candidate: [0-9]'; then break; fi
    done
    PACKAGES[i]=$package
  done
  say "installing with apt-get: ${PACKAGES[*]}"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -o Acquire::Retries=3 install -y --no-install-recommends "${PACKAGES[@]}" </dev/null
}

apt_names() {
  local names=("${PACKAGES[@]/#JAVA/openjdk-17-jre-headless}")
  printf '%s' "${names[*]/#JDK/openjdk-17-jdk-headless}"
}

join() {
  local all
  all=$(printf '%s, ' "$@")
  printf '%s' "${all%, }"
}

main "$@"
