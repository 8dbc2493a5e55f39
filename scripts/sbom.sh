#!/usr/bin/env bash
#
# Writes bills of materials (CycloneDX, JSON) of the image's programs into the cache folder's sbom/; installs cargo-cyclonedx into the cache first
# if it is not there.

set -euo pipefail

VERSION=0.5.9
CACHE=${FOREBAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay}
TOOLS=$CACHE/tools/cargo-cyclonedx-$VERSION

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
if [ ! -x "$TOOLS/bin/cargo-cyclonedx" ]; then
  echo "installing cargo-cyclonedx $VERSION into $TOOLS" >&2
  # Not into the target folder of the workspace.
  env -u CARGO_TARGET_DIR cargo install --locked --root "$TOOLS" cargo-cyclonedx --version "$VERSION"
fi

# It writes beside each manifest: so it gets a copy, of what is committed.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git archive HEAD | tar -xf - -C "$copy"

# The time of the commit instead of now, and no random number: the same commit gives the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
"$TOOLS/bin/cargo-cyclonedx" cyclonedx -q --manifest-path "$copy/Cargo.toml" --format json --spec-version 1.5 --describe binaries \
  --target x86_64-unknown-linux-gnu
mkdir -p "$CACHE/sbom"
for program in cli/forebay operator/forebay-operator; do
  # The folder's name is another one each time.
  sed "s|file://$copy|file:///forebay|g" "$copy/${program}_bin.cdx.json" >"$CACHE/sbom/$(basename "$program").cdx.json"
  echo "$CACHE/sbom/$(basename "$program").cdx.json"
done
