# shellcheck shell=bash
#
# What the tests of the packages need besides a cluster, each pinned: Helm, built from source; promtool; and the definitions of PodMonitor and
# PrometheusRule, which a cluster has from the Prometheus operator.

HELM_VERSION=4.3.1
KWOK_VERSION=0.8.0
PROMETHEUS_OPERATOR_VERSION=0.85.0
TOOLS=$FOREBAY_CACHE/stack/tools
HELM=$TOOLS/helm-$HELM_VERSION
KWOK=$TOOLS/kwok-$KWOK_VERSION
PROMTOOL=$TOOLS/promtool
# Tests and the bench find these definitions here.
export FOREBAY_KWOK_STAGES=$KWOK/stages
export FOREBAY_MONITORING_CRDS=$TOOLS/prometheus-operator-$PROMETHEUS_OPERATOR_VERSION
export PATH="$HELM:$PROMTOOL:$KWOK:$PATH"

install_tools() {
  install_helm
  install_promtool
  install_monitoring_crds
}

install_helm() {
  [ -x "$HELM/helm" ] || go_install "$HELM" "helm.sh/helm/v4/cmd/helm@v$HELM_VERSION"
}

# For the bench of the operator alone. What it plays stands in files of its own: nodes and pods become ready at once.
install_kwok() {
  local stage
  [ -x "$KWOK/kwok" ] || go_install "$KWOK" "sigs.k8s.io/kwok/cmd/kwok@v$KWOK_VERSION"
  mkdir -p "$FOREBAY_KWOK_STAGES"
  for stage in node/fast/node-initialize pod/fast/pod-ready pod/fast/pod-delete; do
    install -m 644 "$(module_dir "sigs.k8s.io/kwok@v$KWOK_VERSION")/kustomize/stage/$stage.yaml" "$FOREBAY_KWOK_STAGES/"
  done
}

# Where Go keeps a module, which is downloaded if it is not there.
module_dir() { # MODULE@VERSION
  go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

# By name and version: Go checks what it downloads against its public list of checksums.
go_install() { # FOLDER PACKAGE@VERSION
  say "building $2 into $1; this takes some minutes"
  mkdir -p "$1"
  GOBIN=$1 CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOCACHE="${GOCACHE:-$FOREBAY_CACHE/stack/go-build}" \
    nice -n 19 go install -trimpath -ldflags '-s -w' "$2" >&2
}

# Out of Debian's package: installed as a whole it would start a server. From source it takes a quarter of an hour.
install_promtool() {
  [ ! -x "$PROMTOOL/promtool" ] || return 0
  local scratch
  scratch=$(mktemp -d)
  say "taking promtool from Debian's package prometheus into $PROMTOOL"
  (cd "$scratch" && apt-get -q -o Acquire::Retries=3 -o APT::Sandbox::User=root download prometheus && dpkg-deb --extract prometheus_*.deb .) >&2
  mkdir -p "$PROMTOOL"
  mv "$scratch/usr/bin/promtool" "$PROMTOOL/promtool"
  rm -rf "$scratch"
}

install_monitoring_crds() {
  [ ! -d "$FOREBAY_MONITORING_CRDS" ] || return 0
  local module kind
  module=$(module_dir "github.com/prometheus-operator/prometheus-operator@v$PROMETHEUS_OPERATOR_VERSION")
  [ -d "$module" ] || fail "the module of the Prometheus operator was not downloaded"
  mkdir -p "$FOREBAY_MONITORING_CRDS.new"
  for kind in podmonitors prometheusrules; do
    install -m 644 "$module/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$FOREBAY_MONITORING_CRDS.new/$kind.yaml"
  done
  mv "$FOREBAY_MONITORING_CRDS.new" "$FOREBAY_MONITORING_CRDS"
}
