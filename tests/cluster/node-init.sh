#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The first process of a node's namespaces: node.sh starts it, and its end is the end of all in them.
# It starts the programs of the node in order and again when they end, but for those in the folder "held".
set -u
# Of node.sh: the folder of this node, what was built, names and addresses.
: "${STATE:?}" "${BIN:?}" "${NODE:?}" "${NODE_IP:?}" "${SERVICE_CIDR:?}"
pki=$STATE/pki
declare -A pid=()

prepare() {
    mount --make-rprivate /
    mount -t proc proc /proc
    mount --make-rshared /
    hostname "$NODE"
    # What these programs keep at fixed places is the node's and not the machine's.
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t tmpfs -o mode=755 tmpfs /var/lib
    mkdir -p /run/lock /run/netns /run/containerd /var/lib/kubelet
    mount --bind "$STATE/kubelet" /var/lib/kubelet
    mount --make-shared /var/lib/kubelet
    mount --bind "$STATE/varlog" /var/log
    # Nothing leads out of here: an address of its own is all that a node needs. (Not of a "dummy", which
    # kernels of virtual machines lack.)
    ip link set lo up
    ip link add node type veth peer name node-peer
    ip address add "$NODE_IP/24" dev node
    ip link set node up
    ip link set node-peer up
    ip route add default dev node
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

command_etcd() {
    local client=http://127.0.0.1:2379 peer=http://127.0.0.1:2380
    # It is killed in tests, but the machine is not: what was written is there.
    exec etcd --name "$NODE" --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level=warn \
        --listen-client-urls $client --advertise-client-urls $client \
        --listen-peer-urls $peer --initial-advertise-peer-urls $peer --initial-cluster "$NODE=$peer"
}

command_containerd() { exec containerd --config "$STATE/containerd.toml"; }

command_apiserver() {
    exec kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443 \
        --advertise-address="$NODE_IP" --service-cluster-ip-range="$SERVICE_CIDR" --authorization-mode=Node,RBAC \
        --enable-admission-plugins=NodeRestriction --client-ca-file="$pki/ca.crt" \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
        --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
        --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
        --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
        --service-account-issuer=https://kubernetes.default.svc --token-auth-file="$pki/tokens.csv" \
        --audit-policy-file="$STATE/audit.yaml" --audit-log-path="$STATE/audit.log" --profiling=false
}

of_kubeconfig() { # NAME: the flags of a program that asks the API server who asks it
    echo "--kubeconfig=$pki/$1.kubeconfig --authentication-kubeconfig=$pki/$1.kubeconfig" \
        "--authorization-kubeconfig=$pki/$1.kubeconfig --leader-elect=false --bind-address=127.0.0.1"
}

# shellcheck disable=SC2046 # the flags are words
command_controllers() {
    exec kube-controller-manager $(of_kubeconfig controllers) --use-service-account-credentials \
        --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" \
        --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key"
}

# shellcheck disable=SC2046
command_scheduler() { exec kube-scheduler $(of_kubeconfig scheduler); }

command_kubelet() {
    exec kubelet --config="$STATE/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig" \
        --hostname-override="$NODE" --node-ip="$NODE_IP" --root-dir=/var/lib/kubelet
}

command_proxy() { exec kube-proxy --config="$STATE/proxy.yaml"; }

start() { # NAME
    [ -e "$STATE/held/$1" ] && return
    "command_$1" >>"$STATE/log/$1.log" 2>&1 </dev/null &
    pid[$1]=$!
    # As it is counted in here: who sends signals comes in for it.
    echo "$!" >"$STATE/run/$1"
}

until_ok() { # COMMAND...
    until "$@" >/dev/null 2>&1; do sleep 0.1; done
}

prepare
start etcd
start containerd
start apiserver
until_ok curl -skf --max-time 1 https://127.0.0.1:6443/readyz
start controllers
start scheduler
until_ok ctr -a /run/containerd/containerd.sock -n k8s.io images import "$BIN/../pause.tar"
start kubelet
start proxy
touch "$STATE/started"
while :; do
    for name in "${!pid[@]}"; do
        kill -0 "${pid[$name]}" 2>/dev/null || start "$name"
    done
    sleep 0.2 &
    wait $!
done
