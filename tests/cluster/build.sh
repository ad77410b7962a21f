#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds what node.sh starts: Kubernetes, etcd, containerd, runc and the network plugins, from the Go
# modules that tools/*/go.mod name and tools/*/go.sum pin. Prints the folder that they are in.
#
# Each is built once and kept in KILN_CLUSTER_CACHE (default: kiln-cluster below XDG_CACHE_HOME, which is
# ~/.cache): what is there and was made from the same files is not built again, and nothing is downloaded.
# For the first time that takes eight minutes on two cores, two gigabytes of memory and of disk;
# KILN_CLUSTER_JOBS is how many compilers run at the same time (default: as many as there are cores).
set -euo pipefail

tools=$(dirname "$(readlink -f "$0")")/tools
cache=${KILN_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kiln-cluster}
bin=$cache/bin
# This file is part of what a binary is made from: it has the flags.
self=$(readlink -f "$0")

needed_go=go1.26.0

say() { echo "cluster: $*" >&2; }
die() { say "$*"; exit 1; }

# Modules ask for a Go that Debian 12 lacks. It is a module itself, which any Go can fetch and verify.
find_go() {
    local version at
    [ -z "${go:-}" ] || return 0
    go=$(command -v go) || die "there is no go: tools/install-deps.sh cluster"
    export GOTOOLCHAIN=local GOFLAGS=
    version=$("$go" env GOVERSION)
    [ "$(printf '%s\n' "$needed_go" "$version" | sort -V | head -n 1)" != "$needed_go" ] || return 0
    say "$go is $version: fetching $needed_go"
    at=$(cd / && "$go" mod download -json "golang.org/toolchain@v0.0.1-$needed_go.$("$go" env GOOS)-$("$go" env GOARCH)" |
        sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
    [ -x "$at/bin/go" ] || chmod -R a+x "$at/bin" "$at/pkg/tool"
    go=$at/bin/go
    PATH=$at/bin:$PATH
}

source_of() { sha256sum "$tools/$1/go.mod" "$tools/$1/go.sum" "$self" | cut -d' ' -f1 | sha256sum | cut -d' ' -f1; }
module_version() { sed -nE "s#^(require|	)? *$1 (v[^ ]+).*#\2#p" go.mod | head -n 1; }

compile() { # OUT ARGUMENT...
    local out=$1
    shift
    nice -n 10 "$go" build -buildvcs=false -mod=readonly -trimpath -p "${KILN_CLUSTER_JOBS:-$(nproc)}" -o "$out" "$@"
}

build_kubernetes() {
    local version flags x path=k8s.io/kubernetes/cmd
    version=$(module_version k8s.io/kubernetes)
    flags="-s -w"
    # Without them the programs say that they are v0.0.0, and refuse each other.
    for x in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $x.gitVersion=$version -X $x.gitMajor=1 -X $x.gitMinor=$(cut -d. -f2 <<<"$version")"
        flags+=" -X $x.gitTreeState=clean -X $x.buildDate=1970-01-01T00:00:00Z"
    done
    CGO_ENABLED=0 compile "$1/" -ldflags "$flags" \
        $path/{kube-apiserver,kube-controller-manager,kube-proxy,kube-scheduler,kubectl,kubelet}
}

build_etcd() { CGO_ENABLED=0 compile "$1/etcd" -ldflags "-s -w" go.etcd.io/etcd/server/v3; }

build_containerd() {
    local module=github.com/containerd/containerd/v2
    CGO_ENABLED=0 compile "$1/" -tags "no_btrfs no_zfs no_devmapper no_aufs urfave_cli_no_docs" \
        -ldflags "-s -w -X $module/version.Version=$(module_version $module)" \
        $module/cmd/{containerd,containerd-shim-runc-v2,ctr}
}

build_runc() { # by cgo: it enters namespaces before Go's run time begins
    CGO_ENABLED=1 compile "$1/runc" -tags seccomp -ldflags "-s -w" github.com/opencontainers/runc
}

build_cni() {
    local module=github.com/containernetworking/plugins/plugins
    CGO_ENABLED=0 compile "$1/" -ldflags "-s -w" $module/main/{bridge,loopback} $module/ipam/host-local
}

mkdir -p "$bin"
exec 9>"$cache/lock"
flock 9
for part in etcd runc cni containerd kubernetes; do
    stamp=$cache/$part.stamp
    [ "$(cat "$stamp" 2>/dev/null)" = "$(source_of $part)" ] && continue
    find_go
    say "building $part"
    begun=$SECONDS new=$cache/new-$part
    rm -rf "$new"
    mkdir "$new"
    (cd "$tools/$part" && "build_$part" "$new") >&2 || die "$part was not built"
    mv -f "$new"/* "$bin/"
    rmdir "$new"
    source_of $part >"$stamp"
    say "$part: $((SECONDS - begun)) s"
done
echo "$bin"
