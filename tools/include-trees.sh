#!/bin/sh
# Makes the include tree of one module: a folder of links to the modules whose headers it may use.
# usage: include-trees.sh BUILD_DIR SOURCE_DIR MODULE USED...
set -eu
build=$1 source=$2 module=$3
shift 3
tree=$build/include/$module
rm -rf "$tree"
mkdir -p "$tree"
for used in "$module" "$@"; do
	ln -s "$source/$used" "$tree/$used"
done
