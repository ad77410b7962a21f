#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
#   run.sh IMAGE... -- COMMAND...
#
# Starts a node (node.sh) that has these images of deploy/images, and PostgreSQL, RabbitMQ and Redis
# (tools/stack.sh) in its network, runs the command there, and takes all of it down again. Images are
# built where they, or what they are made from, changed. Environment, beside that of node.sh:
#
#   KILN_CLUSTER_IMAGES   the folder for the images, kept for the next time (default: build/images)
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
root=$(dirname "$(dirname "$here")")
export KILN_CLUSTER_DIR=${KILN_CLUSTER_DIR:-$root/build/cluster}
# Ports of the node's network: nothing else listens there.
export KILN_STACK_DIR=${KILN_STACK_DIR:-$KILN_CLUSTER_DIR-stack} KILN_STACK_PORT=${KILN_STACK_PORT:-27150}
archives=${KILN_CLUSTER_IMAGES:-$root/build/images}

down() {
    "$root/tools/stack.sh" down
    "$here/node.sh" down
    rm -rf "$KILN_STACK_DIR"
}

images=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    images+=("$1")
    shift
done
[ $# -gt 1 ] || {
    sed -n '4p' "$0" >&2
    exit 2
}
shift

# Nothing can be fetched from inside.
"$root/tools/install-deps.sh" cluster images stack
"$root/deploy/images/build.sh" --archive "$archives" "${images[@]}" >&2
trap down EXIT
"$here/node.sh" up
files=("${images[@]/#/$archives/}")
"$here/node.sh" import "${files[@]/%/.tar}"
stack=$("$here/node.sh" net "$root/tools/stack.sh" up)
eval "$stack"
"$here/node.sh" net "$@"
