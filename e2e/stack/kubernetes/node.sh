#!/usr/bin/env bash
#
# node.sh NUMBER: a whole node, process 1 of its own pid, network, mount, uts, ipc and cgroup namespaces. A SIGKILL of its outer
# process is the loss of the machine: kubelet, containerd and all pods are gone at once. Started by `kubernetes node-up`.

# shellcheck source=settings.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/settings.sh"

I=$1
NAME=n$I
C=$RUN/certificates
D=$RUN/$NAME

if [ "${2:-}" != inside ]; then
  until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
  ip link set lo up
  ip link set eth0 up
  ip addr add "$(node_address "$I")/24" dev eth0
  # Cgroups of its own below wherever we are, in every hierarchy. Read first: the file changes while we move.
  while IFS=: read -r _ controllers path; do
    [ -n "$controllers" ] || continue
    hierarchy=${controllers#name=}
    folder=/sys/fs/cgroup/$hierarchy$path
    folder=${folder%/}/forebay-$NAME
    mkdir -p "$folder"
    if [ "$hierarchy" = cpuset ]; then
      cat "${folder%/*}/cpuset.cpus" >"$folder/cpuset.cpus"
      cat "${folder%/*}/cpuset.mems" >"$folder/cpuset.mems"
    fi
    # A node is a machine of its own elsewhere. Here its group would count as much as any single thread of the servers beside it.
    if [ "$hierarchy" = cpu ]; then echo 8192 >"$folder/cpu.shares"; fi
    echo $$ >"$folder/cgroup.procs"
    echo "$folder" >>"$D/cgroups"
  done <<<"$(cat /proc/self/cgroup)"
  exec unshare --cgroup --mount --uts --ipc --pid --fork --mount-proc --kill-child bash "$0" "$I" inside
fi

hostname "$NAME"
mount --make-rshared /
mount -t tmpfs tmpfs /run
mkdir -p /run/lock
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
for hierarchy in cpu cpuacct cpuset memory devices freezer blkio pids; do
  mkdir "/sys/fs/cgroup/$hierarchy"
  mount -t cgroup -o "$hierarchy" cgroup "/sys/fs/cgroup/$hierarchy"
done
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mkdir -p "$D"/{log,containerd,kubelet,cni,etc-cni,pods} /var/lib/{containerd,kubelet,cni} /etc/cni/net.d /var/log/pods /var/log/containers
mount --bind "$D/containerd" /var/lib/containerd
mount --bind "$D/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind "$D/cni" /var/lib/cni
mount --bind "$D/etc-cni" /etc/cni/net.d
mount --bind "$D/pods" /var/log/pods
sysctl -qw net.ipv4.ip_forward=1
# The node itself reaches services too: the rewriting of addresses needs a route first.
ip route add "$SERVICES" dev eth0
for ((other = 1; other <= NODES_MAX; other++)); do
  [ "$other" = "$I" ] || ip route add "$(pods_of "$other")" via "$(node_address "$other")"
done

cat >/etc/cni/net.d/10-test.conflist <<CONF
{"cniVersion":"0.4.0","name":"test","plugins":[
 {"type":"ptp","ipMasq":false,"mtu":1500,"ipam":{"type":"host-local","ranges":[[{"subnet":"$(pods_of "$I")"}]],"routes":[{"dst":"0.0.0.0/0"}],"dataDir":"/var/lib/cni/networks"}},
 {"type":"portmap","capabilities":{"portMappings":true},"snat":true}]}
CONF
cat >"$D/containerd.toml" <<CONF
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs","io.containerd.snapshotter.v1.zfs","io.containerd.snapshotter.v1.devmapper","io.containerd.snapshotter.v1.aufs","io.containerd.tracing.processor.v1.otlp","io.containerd.internal.v1.tracing","io.containerd.internal.v1.opt"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "forebay.local/pause:1"
  stream_server_address = "127.0.0.1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "/usr/sbin/runc"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
CONF
echo "nameserver $CONTROL_PLANE" >"$D/resolv.conf"
cat >"$D/kubelet.yaml" <<CONF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
address: 0.0.0.0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $C/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $C/$NAME.crt
tlsPrivateKeyFile: $C/$NAME.key
clusterDNS: [$CONTROL_PLANE]
clusterDomain: cluster.local
resolvConf: $D/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failSwapOn: false
makeIPTablesUtilChains: false
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
healthzBindAddress: 127.0.0.1
maxPods: 110
serializeImagePulls: false
staticPodPath: ""
enableServer: true
podPidsLimit: 4096
volumePluginDir: /var/lib/kubelet/volumeplugins
CONF
cat >"$D/proxy.yaml" <<CONF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $C/proxy.conf}
clusterCIDR: 10.244.0.0/16
hostnameOverride: $NAME
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 200ms, syncPeriod: 30s}
CONF

supervise "$D/log/containerd" containerd -c "$D/containerd.toml"
until [ -S /run/containerd/containerd.sock ] && ctr version >/dev/null 2>&1; do sleep 0.05; done
for image in "$HOME_DIR"/images/*.tar "$RUN"/images/*.tar; do
  [ ! -f "$image" ] || ctr -n k8s.io images import "$image" >>"$D/log/import" 2>&1
done
# The same under another name, for tests that go from one image to the next.
ctr -n k8s.io images tag --force forebay.local/forebay:0.1.0 forebay.local/forebay:next >>"$D/log/import" 2>&1 || true
supervise "$D/log/kubelet" kubelet --config="$D/kubelet.yaml" --kubeconfig="$C/$NAME.conf" --hostname-override="$NAME" --node-ip="$(node_address "$I")" \
  --root-dir=/var/lib/kubelet
supervise "$D/log/proxy" kube-proxy --config="$D/proxy.yaml"
wait
