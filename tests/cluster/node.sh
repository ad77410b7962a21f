#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A Kubernetes of one node on this machine, for tests: etcd, API server, controller manager, scheduler,
# containerd with runc, kubelet and kube-proxy, all real, from build.sh. They live in mount, network, pid,
# ipc and uts namespaces of their own: no address, port, route or file of the machine is theirs, nothing
# in there reaches a network, and the end of one process ends all.
#
#   node.sh up                 build what is missing, start, wait until the node is ready
#   node.sh down               stop, and remove all that "up" and the cluster made
#   node.sh kill NAME          SIGKILL; it is started again at once
#   node.sh hold NAME          the same, and it stays away
#   node.sh release NAME       and is back
#   node.sh import FILE...     images, as archives, into the node
#   node.sh net COMMAND...     runs it in the node's network, with KUBECONFIG
#   node.sh exec COMMAND...    runs it in all of the node's namespaces
#
# NAME is etcd, containerd, apiserver, controllers, scheduler, kubelet or proxy. Environment:
#
#   KILN_CLUSTER_DIR     the folder for its data and logs (default: build/cluster)
#   KILN_CLUSTER_CACHE   what was built, kept for the next time: see build.sh
#
# Needs root, and cgroups of version 1 or 2 that may be written.
set -euo pipefail
umask 022

here=$(dirname "$(readlink -f "$0")")
root=$(dirname "$(dirname "$here")")
export STATE NODE=node-1 NODE_IP=10.99.0.1 SERVICE_CIDR=10.96.0.0/16 BIN
STATE=$(readlink -m "${KILN_CLUSTER_DIR:-$root/build/cluster}")
service_ip=10.96.0.1 pod_cidr=10.88.0.0/16
pki=$STATE/pki
# The name of the node's part of each cgroup hierarchy.
cgroup=kiln-cluster-$(cksum <<<"$STATE" | cut -d' ' -f1)
# What a kubelet sets for all of the machine, since these have no namespaces.
sysctls=(vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes)

say() { echo "cluster: $*" >&2; }
die() { say "$*"; exit 1; }

# ---- the first process of the node ----

# A pid counts only while its process is the one that was started: "PID START", see tools/stack.sh.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # shellcheck disable=SC2086 # the fields behind the name in brackets are meant to be split
    set -- ${stat##*) }
    [ "$1" != Z ] && echo "${20}"
}

init_pid() {
    local pid start
    read -r pid start 2>/dev/null <"$STATE/init.pid" || return 1
    [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}

enter() { # NAMESPACES COMMAND...
    local pid namespaces=$1
    shift
    pid=$(init_pid) || die "no node runs in $STATE"
    export KUBECONFIG=$STATE/admin.kubeconfig PATH=$BIN:$PATH
    # shellcheck disable=SC2086 # each is a flag
    exec nsenter --target "$pid" $namespaces -- "$@"
}
in_net() { enter --net "$@"; }
in_node() { enter "--mount --net --pid --ipc --uts" "$@"; }

# ---- what the programs are told ----

make_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

make_certificate() { # NAME SUBJECT USAGE [ALTERNATIVE-NAMES]
    make_key "$1.key"
    {
        echo "basicConstraints=CA:FALSE"
        echo "keyUsage=digitalSignature"
        echo "extendedKeyUsage=$3"
        [ -z "${4:-}" ] || echo "subjectAltName=$4"
    } >"$1.ext"
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

make_kubeconfig() { # FILE NAME
    cat >"$1" <<END
apiVersion: v1
kind: Config
current-context: node
clusters: [{name: node, cluster: {server: "https://127.0.0.1:6443", certificate-authority: "$pki/ca.crt"}}]
contexts: [{name: node, context: {cluster: node, user: node}}]
users: [{name: node, user: {client-certificate: "$pki/$2.crt", client-key: "$pki/$2.key"}}]
END
}

make_pki() (
    umask 077
    mkdir -p "$pki"
    cd "$pki"
    local cluster=kubernetes.default.svc token name
    make_key ca.key
    openssl req -x509 -new -key ca.key -subj /CN=kiln-cluster -days 3650 -out ca.crt
    make_certificate apiserver /CN=kube-apiserver serverAuth \
        "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:$cluster,DNS:$cluster.cluster.local,IP:127.0.0.1,IP:$service_ip,IP:$NODE_IP"
    make_certificate kubelet "/O=system:nodes/CN=system:node:$NODE" serverAuth,clientAuth "DNS:$NODE,IP:$NODE_IP,IP:127.0.0.1"
    make_certificate kubelet-client /O=system:masters/CN=kube-apiserver clientAuth
    make_certificate admin /O=system:masters/CN=admin clientAuth
    make_certificate controllers /CN=system:kube-controller-manager clientAuth
    make_certificate scheduler /CN=system:kube-scheduler clientAuth
    make_certificate proxy /CN=system:kube-proxy clientAuth
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    token=$(openssl rand -hex 24)
    echo "$token,admin,admin,system:masters" >tokens.csv
    echo "$token" >admin.token
    for name in kubelet controllers scheduler proxy; do make_kubeconfig "$name.kubeconfig" $name; done
    make_kubeconfig "$STATE/admin.kubeconfig" admin
)

# "delegated" is the runtime class whose containers may make cgroups of their own below theirs.
write_containerd_config() {
    cat >"$STATE/containerd.toml" <<END
version = 3
root = "$STATE/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  # Where root may not lower a process' badness, or hugetlb is not mounted, pods start all the same.
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "runc"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "$BIN/runc"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.delegated]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.delegated.options]
  BinaryName = "$here/runc-delegated"
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["$BIN"]
  conf_dir = "$STATE/cni"
END
    cat >"$STATE/cni/10-bridge.conflist" <<END
{"cniVersion": "1.0.0", "name": "kiln", "plugins": [{
  "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_cidr"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni"}}]}
END
}

write_kubelet_config() {
    cat >"$STATE/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
readOnlyPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/kubelet.crt
tlsPrivateKeyFile: $pki/kubelet.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: $STATE/volume-plugins
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
oomScoreAdj: 0
failSwapOn: false
resolvConf: ""
# There is no registry to get a second time what was collected.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
# A node that is back, or away, is to be known within a test's patience.
nodeStatusUpdateFrequency: 2s
nodeStatusReportFrequency: 10s
END
    cat >"$STATE/proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $pki/proxy.kubeconfig}
clusterCIDR: $pod_cidr
hostnameOverride: $NODE
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END
    # What Kiln asks the API server for, and nothing of the cluster's own talk.
    cat >"$STATE/audit.yaml" <<END
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ["system:serviceaccounts:code-exec-system"]}
- {level: None}
END
}

make_pause_image() {
    local archive=$BIN/../pause.tar work
    [ -e "$archive" ] && [ "$archive" -nt "$here/pause.c" ] && return
    work=$(mktemp -d)
    gcc -static -Os -s -o "$work/pause" "$here/pause.c"
    "$here/image.py" localhost/pause:1 /pause "$work/pause" "$archive"
    rm -r "$work"
}

# ---- cgroups and settings of the machine ----

hierarchies() { # the folders at which each is mounted
    awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts | sort -u
}

make_cgroups() {
    local at
    for at in $(hierarchies); do
        mkdir -p "$at/$cgroup"
        if [ -e "$at/cpuset.cpus" ] && [ -e "$at/tasks" ]; then # version 1: empty until they are set
            cat "$at/cpuset.cpus" >"$at/$cgroup/cpuset.cpus"
            cat "$at/cpuset.mems" >"$at/$cgroup/cpuset.mems"
        fi
        if [ "$at" = /sys/fs/cgroup ]; then
            sed 's/\</+/g' "$at/cgroup.controllers" >"$at/cgroup.subtree_control"
        fi
    done
}

remove_cgroups() {
    local at
    for at in $(hierarchies); do
        for _ in {1..50}; do
            [ -d "$at/$cgroup" ] || break
            find "$at/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        done
        [ ! -d "$at/$cgroup" ] || say "could not remove $at/$cgroup"
    done
}

save_sysctls() {
    local name
    [ -e "$STATE/sysctls" ] && return
    for name in "${sysctls[@]}"; do echo "$name $(cat "/proc/sys/$name")"; done >"$STATE/sysctls"
}

restore_sysctls() {
    local name value
    [ -e "$STATE/sysctls" ] || return 0
    while read -r name value; do
        [ "$(cat "/proc/sys/$name")" = "$value" ] || echo "$value" >"/proc/sys/$name"
    done <"$STATE/sysctls"
}

# ---- up and down ----

ready() { (in_net kubectl get node $NODE -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) | grep -qx True; }
has_account() { (in_net kubectl get serviceaccount default >/dev/null 2>&1); }

until_ok() { # WHAT COMMAND...
    local what=$1 until=$((SECONDS + 120))
    shift
    until "$@"; do
        init_pid >/dev/null || { tail -n 20 "$STATE/log/init.log" >&2; die "the node ended: $STATE/log"; }
        [ $SECONDS -lt $until ] || die "$what did not come within 120 s: $STATE/log"
        sleep 0.1
    done
}

launch() {
    local outer inner=
    setsid unshare --mount --net --pid --ipc --uts --fork --kill-child "$here/node-init.sh" \
        >"$STATE/log/init.log" 2>&1 9>&- </dev/null &
    outer=$!
    for _ in {1..100}; do
        inner=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null || true)
        [ -n "$inner" ] && break
        sleep 0.05
    done
    inner=${inner// /}
    [ -n "$inner" ] || die "the node did not start: $STATE/log/init.log"
    echo "$inner $(started_at "$inner")" >"$STATE/init.pid"
}

up() {
    [ "$(id -u)" = 0 ] || die "a node needs root"
    case $STATE in /run/* | /var/lib/* | /var/log/*) die "$STATE is a place that the node has one of its own for" ;; esac
    "$root/tools/install-deps.sh" cluster
    "$here/build.sh" >/dev/null
    mkdir -p "$STATE"
    exec 9>"$STATE/lock"
    flock 9
    ! init_pid >/dev/null || return 0
    mkdir -p "$STATE"/{run,held,log,etcd,containerd,cni,volume-plugins,varlog/{pods,containers},kubelet/seccomp}
    rm -f "$STATE/started" "$STATE/held"/*
    # As docs/OPERATIONS.md has an operator do it on each node.
    install -D -m 0644 -t "$STATE/kubelet/seccomp/kiln" "$root"/deploy/kubernetes/seccomp/*.json
    make_pause_image
    [ -e "$STATE/admin.kubeconfig" ] || make_pki
    write_containerd_config
    write_kubelet_config
    save_sysctls
    make_cgroups
    export PATH=$BIN:$PATH
    launch
    until_ok "its start" test -e "$STATE/started"
    until_ok "a ready node" ready
    until_ok "a service account" has_account
}

down() {
    local pid
    [ -d "$STATE" ] || return 0
    exec 9>"$STATE/lock"
    flock 9
    if pid=$(init_pid); then
        # All that is in the pid namespace ends with it.
        kill -s KILL "$pid"
        for _ in {1..300}; do
            [ -e "/proc/$pid" ] || break
            sleep 0.1
        done
    fi
    remove_cgroups
    restore_sysctls
    rm -rf --one-file-system "$STATE"
}

BIN=${KILN_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kiln-cluster}/bin
BIN=$(readlink -m "$BIN")
verb=${1:-}
[ $# -eq 0 ] || shift
case $verb in
kill | hold | release)
    case ${1:-} in
    etcd | containerd | apiserver | controllers | scheduler | kubelet | proxy) ;;
    *) die "usage: node.sh $verb etcd|containerd|apiserver|controllers|scheduler|kubelet|proxy" ;;
    esac
    ;;
esac
kill_one() { (in_node kill -s KILL "$(cat "$STATE/run/$1")"); }

case $verb in
up) up ;;
down) down ;;
kill) kill_one "$1" ;;
hold)
    touch "$STATE/held/$1"
    kill_one "$1"
    ;;
release) rm -f "$STATE/held/$1" ;;
import)
    for file in "$@"; do
        (in_node ctr -a /run/containerd/containerd.sock -n k8s.io images import "$(readlink -f "$file")") >/dev/null
    done
    ;;
net) in_net "$@" ;;
exec) in_node "$@" ;;
*)
    sed -n '3,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
