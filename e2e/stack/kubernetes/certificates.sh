#!/usr/bin/env bash
#
# certificates.sh DIR: one certificate authority, the certificates of all parts of the cluster, and their kubeconfigs. They are for
# tests, and live as long as the cluster does.

set -euo pipefail
# shellcheck source=settings.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/settings.sh"

mkdir -p "$1"
cd "$1"
[ ! -f done ] || exit 0

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key" 2>/dev/null; }

certificate() { # NAME SUBJECT [NAMES]
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr" 2>/dev/null
  {
    echo "keyUsage=digitalSignature,keyEncipherment"
    echo "extendedKeyUsage=serverAuth,clientAuth"
    [ -z "${3:-}" ] || echo "subjectAltName=$3"
  } >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out "$1.crt" -extfile "$1.ext" 2>/dev/null
  rm "$1.csr" "$1.ext"
}

kubeconfig() { # NAME
  cat >"$1.conf" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://$CONTROL_PLANE:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: user, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: test, context: {cluster: test, user: user}}]
current-context: test
YAML
}

key ca
openssl req -x509 -new -key ca.key -subj /CN=forebay-test-ca -days 3650 -out ca.crt 2>/dev/null
NAMES=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost
certificate apiserver /CN=kube-apiserver "$NAMES,IP:127.0.0.1,IP:$CONTROL_PLANE,IP:$SERVICE_OF_API"
certificate admin /O=system:masters/CN=admin
certificate controller-manager /CN=system:kube-controller-manager
certificate scheduler /CN=system:kube-scheduler
certificate proxy /CN=system:kube-proxy
certificate coredns /CN=system:coredns
certificate kubelet-client /O=system:masters/CN=apiserver-kubelet-client
certificate front-proxy /CN=front-proxy-client
for name in admin controller-manager scheduler proxy coredns; do kubeconfig "$name"; done
for ((number = 1; number <= NODES_MAX; number++)); do
  certificate "n$number" "/O=system:nodes/CN=system:node:n$number" "DNS:n$number,IP:$(node_address "$number")"
  kubeconfig "n$number"
done
openssl genrsa -out service-accounts.key 2048 2>/dev/null
openssl rsa -in service-accounts.key -pubout -out service-accounts.pub 2>/dev/null
touch done
