#!/usr/bin/env bash
#
# The C++ compiler as cargo calls it (.cargo/config.toml). RocksDB's 340 files are compiled eight at a time, as one: three fifths of the time would go
# into reading the same headers again and again. RocksDB's own Makefile knows such a build (`make unity_test`). Cargo's build script asks for one object
# for each file: that of the first of eight has all of them, and the others are empty. Everything else is compiled as it is asked for.

set -euo pipefail

TOGETHER=8
# In the folder of librocksdb-sys, where its build script works.
SOURCES=rocksdb_lib_sources.txt

compiler=${CXX:-c++}
source=
for argument; do
  case $argument in rocksdb/*.cc) source=${argument#rocksdb/} ;; esac
done
if [ -z "$source" ] || [ ! -f "$SOURCES" ]; then exec "$compiler" "$@"; fi

# Without the one that the build script replaces.
mapfile -t all < <(grep -v '^util/build_version.cc$' "$SOURCES")
for index in "${!all[@]}"; do
  if [ "${all[index]}" = "$source" ]; then break; fi
done
if [ "${all[index]}" != "$source" ]; then exec "$compiler" "$@"; fi

together=$(mktemp --suffix=.cc)
trap 'rm -f "$together"' EXIT
if [ $((index % TOGETHER)) -eq 0 ]; then
  printf '#include "%s"\n' "${all[@]:index:TOGETHER}" >"$together"
fi
arguments=()
for argument; do
  if [ "$argument" = "rocksdb/$source" ]; then arguments+=("$together"); else arguments+=("$argument"); fi
done
"$compiler" "${arguments[@]}"
