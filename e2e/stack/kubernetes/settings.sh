# shellcheck shell=bash
#
# What the scripts of this folder share: places, addresses, and how to get into the control plane's network.

KUBERNETES=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
FOREBAY_CACHE=$(readlink -m "${FOREBAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay}")
# The version of k8s.io/kubernetes is 1.$VERSION, that of its staging modules 0.$VERSION; kubeall/go.mod pins both.
VERSION=$(sed -n 's|^require k8s.io/kubernetes v1\.||p' "$KUBERNETES/kubeall/go.mod")
SOURCES=$(cat "$KUBERNETES"/kubeall/* "$KUBERNETES"/coredns/* "$KUBERNETES/pause.c" | sha256sum | cut -c 1-8)
HOME_DIR=$FOREBAY_CACHE/stack/kubernetes-1.$VERSION-$SOURCES
BIN=$HOME_DIR/bin
# Those whom `kubernetes with` runs may have another place for their servers than the cluster has.
RUN=${FOREBAY_KUBERNETES_RUN:-$(readlink -m "${FOREBAY_STACK_RUN:-$FOREBAY_CACHE/stack/run}")/kubernetes}
KUBECONFIG_FILE=$RUN/certificates/admin.conf

# All of these exist only inside network namespaces of our own.
CONTROL_PLANE=10.99.0.1
SERVICES=10.96.0.0/16
SERVICE_OF_API=10.96.0.1
NODES_MAX=3
node_address() { echo "10.99.0.1$1"; }
pods_of() { echo "10.244.$1.0/24"; }

export KUBERNETES FOREBAY_CACHE PATH="$BIN:$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin"

say() { printf 'kubernetes: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Prints the pid that was noted in FILE, if that very process is alive.
alive() { # FILE
  local pid started fields stat
  { read -r pid started <"$1"; } 2>/dev/null || return 1
  # Not `$(<...)`: where the file is missing it ends the whole shell.
  { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || return 1
  read -ra fields <<<"${stat##*) }"
  [ "${fields[0]}" != Z ] && [ "${fields[19]}" = "$started" ] || return 1
  echo "$pid"
}

# Notes a process and when it started, which tells it from a later one with the same number.
note() { # FILE PID
  local fields stat
  stat=$(<"/proc/$2/stat")
  read -ra fields <<<"${stat##*) }"
  echo "$2 ${fields[19]}" >"$1"
}

# Runs a command in the control plane's network, where the API server, and the servers that pods need, are reached.
in_network() {
  local pid
  pid=$(alive "$RUN/control-plane.pid") || fail "the cluster is not up; \`kubernetes up\` starts it"
  nsenter -t "$pid" -n -- "$@"
}

cluster() { in_network env KUBECONFIG="$KUBECONFIG_FILE" kubectl "$@"; }

# Starts COMMAND again whenever it ends, as systemd would.
supervise() { # LOG COMMAND...
  local log=$1
  shift
  (
    trap '' HUP
    while :; do
      "$@" >>"$log" 2>&1
      echo "--- ended with $? at $(date +%T)" >>"$log"
      sleep 0.5
    done
  ) &
}
