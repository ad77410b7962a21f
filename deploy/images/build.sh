#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the images of Kiln with buildah, which needs no daemon:
#
#   deploy/images/build.sh                        all of them
#   deploy/images/build.sh kiln runner python     these, and what they need
#   deploy/images/build.sh --archive DIR ...      and writes each as DIR/NAME.tar (docker-archive)
#   deploy/images/build.sh --check ...            builds each a second time: the same image?
#   deploy/images/build.sh --list                 names, and the tags that they would get
#   deploy/images/build.sh --kustomize ...        builds nothing: tags as a component for kustomize
#
# An image is called localhost/kiln-NAME, which no registry is ever asked for, and has two tags:
# VERSION, and VERSION-HASH, where the hash is of all that the image is made from. One whose hash is
# there already is not built again. Times in an image are that of the last commit to what it is made
# from, so that the same commit, base and Debian archive give the same image, bit by bit (not jdk and
# all-in-one: what Java's packages make when they are installed has times and addresses in it).
#
# KILN_IMAGE_BASE names a base image of Debian 12 (default: one that is made here with debootstrap).
set -euo pipefail
cd "$(dirname "$0")/../.."
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}

base=${KILN_IMAGE_BASE:-localhost/debian:bookworm-slim}
mirror=${KILN_DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${KILN_DEBIAN_SECURITY:-http://deb.debian.org/debian-security}
version=$(sed -n "s/^\tversion: '\(.*\)',$/\1/p" meson.build)

programs='meson.build meson_options.txt openapi.yaml deploy/systemd languages src bench tests/meson.build'
programs+=' tools/install-deps.sh tools/include-trees.sh tools/openapi-to-c.py'

# Name, and what it is made from beside its Dockerfile and "install". "=NAME": that image.
images() {
    cat <<END
build $programs
kiln =build
runner =build deploy/images/inject
all-in-one =build
gcc
go
jdk
node
php
python
ruby
scripts
END
}

die() {
    echo "build.sh: $*" >&2
    exit 1
}

inputs_of() {
    images | sed -n "s/^$1 \?//p"
}

is_image() {
    images | cut -d ' ' -f 1 | grep -qxF -- "$1"
}

# The files of an image, those of the image that it takes programs from included.
files_of() {
    local one
    printf '%s\n' "deploy/images/$1.Dockerfile" deploy/images/install .dockerignore
    for one in $(inputs_of "$1"); do
        case $one in
        =*) files_of "${one#=}" ;;
        *) git ls-files --cached --others --exclude-standard -- "$one" ;;
        esac
    done | sort -u
}

base_id() {
    buildah images -q --no-trunc "$base" 2>/dev/null || echo none
}

hash_of() {
    {
        base_id
        files_of "$1" | xargs -d '\n' stat -c '%A %n' -- | cut -c 4,11-
        files_of "$1" | xargs -d '\n' sha256sum --
    } | sha256sum | cut -c 1-12
}

epoch_of() {
    local files
    mapfile -t files < <(files_of "$1")
    [ -n "${SOURCE_DATE_EPOCH:-}" ] || SOURCE_DATE_EPOCH=$(git log -1 --format=%ct -- "${files[@]}")
    # What was never committed has no time.
    echo "${SOURCE_DATE_EPOCH:-0}"
}

# Once each: reading all files takes a moment.
declare -A tags
know_tags() {
    local name
    for name in $(images | cut -d ' ' -f 1); do
        tags[$name]=$version-$(hash_of "$name")
    done
}

tag_of() {
    echo "${tags[$1]}"
}

have() {
    buildah images -q "$1" >/dev/null 2>&1
}

# Debian's own slim image, made from Debian's archive: its essential packages and apt.
make_base() {
    local root container
    have "$base" && return
    [ "$base" = localhost/debian:bookworm-slim ] || die "there is no image $base"
    [ "$(id -u)" = 0 ] || die "debootstrap needs root: run this as root, or pull an image and name it in KILN_IMAGE_BASE"
    root=$(mktemp -d "${TMPDIR:-/tmp}/kiln-base.XXXXXX")
    # shellcheck disable=SC2064 # this folder
    trap "rm -rf '$root'" RETURN
    echo "making $base" >&2
    chmod 755 "$root"
    debootstrap --variant=minbase bookworm "$root" "$mirror" >&2
    cat >"$root/etc/apt/sources.list" <<END
deb $mirror bookworm main
deb $mirror bookworm-updates main
deb $security bookworm-security main
END
    cp deploy/images/install "$root/tmp/install"
    chroot "$root" /tmp/install --upgrade >&2
    chroot "$root" sh -c 'find /usr/share/doc -type f ! -name copyright -delete; find /usr/share/doc -type l -delete
        rm -rf /usr/share/man/* /usr/share/info/* /usr/share/locale/* /usr/share/lintian' >&2
    # Of this build, and of this machine.
    rm -rf "$root"/var/log/* "$root"/etc/machine-id "$root"/etc/hostname "$root"/etc/resolv.conf "${root:?}/dev"
    mkdir -m 755 "$root/dev"
    container=$(buildah from scratch)
    buildah add -q "$container" "$root" / >/dev/null
    buildah config --cmd bash --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit -q --rm --timestamp 0 "$container" "$base" >/dev/null
}

# build_as NAME IMAGE: builds it whatever is there.
build_as() {
    local args=() one
    for one in $(inputs_of "$1"); do
        case $one in
        =*) args+=(--build-arg "PROGRAMS=localhost/kiln-${one#=}:$(tag_of "${one#=}")") ;;
        esac
    done
    buildah bud -q --pull-never --no-cache --layers=false --timestamp "$(epoch_of "$1")" \
        --build-arg "BASE=$base" --build-arg "VERSION=$version" "${args[@]}" \
        --label "org.opencontainers.image.version=$(tag_of "$1")" \
        -f "deploy/images/$1.Dockerfile" -t "$2" . >&2
}

make_image() {
    local one name
    for one in $(inputs_of "$1"); do
        case $one in
        =*) make_image "${one#=}" ;;
        esac
    done
    name=localhost/kiln-$1:$(tag_of "$1")
    if ! have "$name"; then
        echo "building $name" >&2
        build_as "$1" "$name"
    fi
    buildah tag "$name" "localhost/kiln-$1:$version"
}

archive() {
    local name=localhost/kiln-$1
    rm -f "$2/$1.tar"
    buildah push -q "$name:$version" "docker-archive:$2/$1.tar:$name:$version"
}

# The content of both, layers and configuration, is in their ids.
check() {
    local first second again=localhost/kiln-$1:check
    first=$(buildah images -q --no-trunc "localhost/kiln-$1:$(tag_of "$1")")
    build_as "$1" "$again"
    second=$(buildah images -q --no-trunc "$again")
    if [ "$first" != "$second" ]; then
        die "$1: two builds differ: $first, $second (kept as $again)"
    fi
    buildah rmi "$again" >/dev/null # the name alone; the image has others
    echo "$1 is the same, built again: $first"
}

kustomize_component() {
    local name
    cat <<'END'
# Made by deploy/images/build.sh --kustomize.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
images:
END
    for name in "$@"; do
        [ "$name" = build ] || echo "- {name: localhost/kiln-$name, newTag: \"$(tag_of "$name")\"}"
    done
}

main() {
    local action=build folder='' name
    while [ $# -gt 0 ]; do
        case $1 in
        --archive)
            [ $# -gt 1 ] || die "--archive needs a folder"
            folder=$2
            shift
            ;;
        --check | --list | --kustomize) action=${1#--} ;;
        --help | -h)
            sed -n '4,/^set /{/^#/s/^# \?//p}' "$0"
            return
            ;;
        -*) die "unknown option $1" ;;
        *) break ;;
        esac
        shift
    done
    for name in "$@"; do
        is_image "$name" || die "no image is called $name: $(images | cut -d ' ' -f 1 | tr '\n' ' ')"
    done
    [ $# -gt 0 ] || mapfile -t names < <(images | cut -d ' ' -f 1)
    [ $# -eq 0 ] || names=("$@")
    command -v buildah >/dev/null || die "buildah is not installed: tools/install-deps.sh images"
    [ "$action" = list ] || [ "$action" = kustomize ] || make_base
    know_tags
    case $action in
    list)
        for name in "${names[@]}"; do echo "localhost/kiln-$name:$(tag_of "$name")"; done
        return
        ;;
    kustomize)
        kustomize_component "${names[@]}"
        return
        ;;
    esac
    [ -z "$folder" ] || mkdir -p "$folder"
    for name in "${names[@]}"; do
        make_image "$name"
        [ "$action" != check ] || check "$name"
        [ -z "$folder" ] || [ "$name" = build ] || archive "$name" "$folder"
        echo "localhost/kiln-$name:$(tag_of "$name")"
    done
}

main "$@"
