#!/usr/bin/env bash
#
# The control plane: process 1 of its own pid, network and mount namespaces. Kill it, and everything in it is gone.

# shellcheck source=settings.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/settings.sh"

C=$RUN/certificates
D=$RUN/control-plane
mkdir -p "$D/log"
ip link set lo up
ip link add lan0 type bridge
ip addr add "$CONTROL_PLANE/24" dev lan0
ip link set lan0 up
sysctl -qw net.ipv4.ip_forward=1
for ((number = 1; number <= NODES_MAX; number++)); do ip route add "$(pods_of "$number")" via "$(node_address "$number")"; done

# No fsync: nobody expects a test cluster to survive a power failure.
supervise "$D/log/etcd" etcd --name e --data-dir "$D/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster e=http://127.0.0.1:2380 \
  --unsafe-no-fsync --log-level warn
supervise "$D/log/apiserver" kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address="$CONTROL_PLANE" --bind-address=0.0.0.0 --secure-port=6443 \
  --service-cluster-ip-range="$SERVICES" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
  --client-ca-file="$C/ca.crt" --tls-cert-file="$C/apiserver.crt" --tls-private-key-file="$C/apiserver.key" \
  --kubelet-client-certificate="$C/kubelet-client.crt" --kubelet-client-key="$C/kubelet-client.key" --kubelet-certificate-authority="$C/ca.crt" \
  --kubelet-preferred-address-types=InternalIP \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file="$C/service-accounts.pub" --service-account-signing-key-file="$C/service-accounts.key" \
  --requestheader-client-ca-file="$C/ca.crt" --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
  --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
  --proxy-client-cert-file="$C/front-proxy.crt" --proxy-client-key-file="$C/front-proxy.key" --enable-aggregator-routing=true \
  --default-not-ready-toleration-seconds=5 --default-unreachable-toleration-seconds=5 --profiling=false
# Then the roles that the others need are there.
until curl -sf --cacert "$C/ca.crt" --cert "$C/admin.crt" --key "$C/admin.key" "https://$CONTROL_PLANE:6443/readyz" >/dev/null; do sleep 0.1; done
supervise "$D/log/controller-manager" kube-controller-manager --kubeconfig="$C/controller-manager.conf" \
  --authentication-kubeconfig="$C/controller-manager.conf" --authorization-kubeconfig="$C/controller-manager.conf" \
  --bind-address=127.0.0.1 --root-ca-file="$C/ca.crt" --service-account-private-key-file="$C/service-accounts.key" --use-service-account-credentials=true \
  --cluster-signing-cert-file="$C/ca.crt" --cluster-signing-key-file="$C/ca.key" --allocate-node-cidrs=false --controllers='*,-cloud-node-lifecycle-controller' \
  --node-monitor-period=1s --node-monitor-grace-period=10s --leader-elect=true
supervise "$D/log/scheduler" kube-scheduler --kubeconfig="$C/scheduler.conf" --authentication-kubeconfig="$C/scheduler.conf" \
  --authorization-kubeconfig="$C/scheduler.conf" --bind-address=127.0.0.1
cat >"$D/Corefile" <<CONF
.:53 {
  bind $CONTROL_PLANE
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $C/coredns.conf test
    pods insecure
    ttl 2
  }
  cache 2
}
CONF
supervise "$D/log/coredns" coredns -conf "$D/Corefile"
wait
