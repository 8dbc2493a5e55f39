# shellcheck shell=bash
#
# What the tests of the packages need besides a cluster, each pinned: Helm, built from source; promtool; and the definitions of PodMonitor and
# PrometheusRule, which a cluster has from the Prometheus operator.

HELM_VERSION=4.3.1
PROMETHEUS_OPERATOR_VERSION=0.85.0
TOOLS=$FOREBAY_CACHE/stack/tools
HELM=$TOOLS/helm-$HELM_VERSION
PROMTOOL=$TOOLS/promtool
# Tests find the definitions here.
export FOREBAY_MONITORING_CRDS=$TOOLS/prometheus-operator-$PROMETHEUS_OPERATOR_VERSION
export PATH="$HELM:$PROMTOOL:$PATH"

install_tools() {
  install_helm
  install_promtool
  install_monitoring_crds
}

# By name and version: Go checks what it downloads against its public list of checksums.
install_helm() {
  [ ! -x "$HELM/helm" ] || return 0
  say "building Helm $HELM_VERSION into $HELM; this takes some minutes"
  mkdir -p "$HELM"
  GOBIN=$HELM CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOCACHE="${GOCACHE:-$FOREBAY_CACHE/stack/go-build}" \
    nice -n 19 go install -trimpath -ldflags '-s -w' "helm.sh/helm/v4/cmd/helm@v$HELM_VERSION" >&2
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
  module=$(go mod download -json "github.com/prometheus-operator/prometheus-operator@v$PROMETHEUS_OPERATOR_VERSION" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  [ -d "$module" ] || fail "the module of the Prometheus operator was not downloaded"
  mkdir -p "$FOREBAY_MONITORING_CRDS.new"
  for kind in podmonitors prometheusrules; do
    install -m 644 "$module/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$FOREBAY_MONITORING_CRDS.new/$kind.yaml"
  done
  mv "$FOREBAY_MONITORING_CRDS.new" "$FOREBAY_MONITORING_CRDS"
}
