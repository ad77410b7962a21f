#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes what Kiln keeps secret in a cluster, as files and a kustomization in a folder:
#
#   deploy/kubernetes/secrets.sh DIR [POOL...]            the cluster's secret, a key for each pool
#   deploy/kubernetes/secrets.sh --servers DIR [POOL...]  and passwords for the servers of the overlay
#                                                         "minikube"
#   kubectl apply -k DIR
#
# Without names of pools: those of standby-pods/. What is there already is kept, so that it can be run
# again for another pool. Without --servers, write DIR/servers.env first (KILN_STORE=, KILN_QUEUE=,
# KILN_CACHE=). Keep a copy of the folder, and keep it to yourself: who has the cluster's secret can
# speak to every runner.
#
# KILN is how to call kiln (default: build/kiln, else kiln), as in
#   KILN="docker run --rm -u $(id -u) -v $PWD/DIR:$PWD/DIR localhost/kiln-kiln:0.1.0 kiln"
set -euo pipefail
umask 077
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    sed -n '4,/^set /{/^#/s/^# \?//p}' "$0"
}

servers=no
if [ "${1:-}" = --servers ]; then
    servers=yes
    shift
fi
if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    usage >&2
    exit 2
fi
mkdir -p "$1"
cd "$1"
shift

kiln=(kiln)
[ ! -x "$here/../../build/kiln" ] || kiln=("$here/../../build/kiln")
[ -z "${KILN:-}" ] || read -ra kiln <<<"$KILN"
pools=("$@")
[ $# -gt 0 ] || mapfile -t pools < <(sed -n 's/^  name: //p' "$here/standby-pods/standby-pods.yaml")

password() {
    openssl rand -hex 16
}

[ -s cluster-secret ] || openssl rand -hex 32 >cluster-secret
mkdir -p keys
for pool in "${pools[@]}"; do
    [ -s "keys/$pool" ] ||
        "${kiln[@]}" runner-key "$pool" --secret-file "$PWD/cluster-secret" --out "$PWD/keys/$pool"
done

if [ $servers = yes ] && [ ! -s data.env ] && [ ! -s servers.env ]; then
    postgres=$(password) rabbitmq=$(password) redis=$(password)
    cat >data.env <<END
POSTGRES_PASSWORD=$postgres
RABBITMQ_DEFAULT_PASS=$rabbitmq
REDIS_PASSWORD=$redis
END
    cat >servers.env <<END
KILN_STORE=postgresql://kiln:$postgres@postgres.code-exec-data:5432/kiln
KILN_QUEUE=amqp://kiln:$rabbitmq@rabbitmq.code-exec-data:5672/
KILN_CACHE=redis://:$redis@redis.code-exec-data:6379/0
END
fi
if [ ! -s servers.env ]; then
    echo "secrets.sh: write KILN_STORE=, KILN_QUEUE= and KILN_CACHE= into $PWD/servers.env" >&2
    exit 1
fi

{
    cat <<'END'
# Made by deploy/kubernetes/secrets.sh.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
generatorOptions:
  disableNameSuffixHash: true
  labels: {app.kubernetes.io/part-of: kiln}
secretGenerator:
- name: kiln-cluster-secret
  namespace: code-exec-system
  files: [secret=cluster-secret]
- name: kiln-servers
  namespace: code-exec-system
  envs: [servers.env]
- name: kiln-runner-keys
  namespace: code-exec-system
  files:
END
    (cd keys && printf -- '  - keys/%s\n' *)
    if [ -s data.env ]; then
        cat <<'END'
- name: kiln-data
  namespace: code-exec-data
  envs: [data.env]
END
    fi
} >kustomization.yaml
echo "$PWD: kubectl apply -k it"
