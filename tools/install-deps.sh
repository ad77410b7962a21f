#!/bin/bash
# Installs what is missing of the named groups, and does nothing where nothing is.
#
#   tools/install-deps.sh build languages        what "make run" needs
#   tools/install-deps.sh --list GROUP...        says what is missing, installs nothing
#
# Each line below is a Debian package and how to see that it, or something as good, is there: a
# command, a file, or a pkg-config module. As root, or where sudo asks for no password, missing
# packages are installed with apt-get; otherwise the command to run is printed.
set -eu

build='
gcc                  file:/usr/bin/gcc
libc6-dev            file:/usr/include/stdio.h
meson                cmd:meson
ninja-build          cmd:ninja
pkg-config           cmd:pkg-config
python3              file:/usr/bin/python3
python3-yaml         py:yaml
libuv1-dev           pc:libuv
libjansson-dev       pc:jansson
libsqlite3-dev       pc:sqlite3
libmicrohttpd-dev    pc:libmicrohttpd
libhiredis-dev       pc:hiredis
libyaml-dev          pc:yaml-0.1
libprotobuf-c-dev    pc:libprotobuf-c
protobuf-c-compiler  cmd:protoc-c
libcurl4-openssl-dev pc:libcurl
libssl-dev           pc:libcrypto
librabbitmq-dev      pc:librabbitmq
libpq-dev            pc:libpq
libzstd-dev          pc:libzstd
'

# The toolchains that tasks are run with. The systems' own at /usr/bin are meant.
languages='
python3              file:/usr/bin/python3
nodejs               file:/usr/bin/node
gcc                  file:/usr/bin/gcc
g++                  file:/usr/bin/g++
libc6-dev            file:/usr/include/stdio.h
default-jdk-headless file:/usr/bin/javac
bash                 file:/bin/bash
'

more_languages='
golang-go            file:/usr/bin/go
ruby                 file:/usr/bin/ruby
'

test='
libcmocka-dev        pc:cmocka
python3-pytest       py:pytest
python3-venv         py:ensurepip
python3-yaml         py:yaml
clang                cmd:clang
clang-format         cmd:clang-format
clang-tidy           cmd:clang-tidy
libclang-rt-14-dev   glob:/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a
cppcheck             cmd:cppcheck
shellcheck           cmd:shellcheck
curl                 cmd:curl
util-linux           cmd:setpriv
python3-seccomp      py:seccomp
faketime             file:/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1
'

vm='
qemu-system-x86      cmd:qemu-system-x86_64
'

# What deploy/images/build.sh makes images with.
images='
buildah              cmd:buildah
debootstrap          cmd:debootstrap
'

# What tests/cluster builds its Kubernetes with, and what that one calls. Any Go will do: it fetches the
# one that Kubernetes asks for.
cluster='
golang-go            cmd:go
gcc                  file:/usr/bin/gcc
libc6-dev            file:/usr/include/stdio.h
pkg-config           cmd:pkg-config
libseccomp-dev       pc:libseccomp
openssl              cmd:openssl
curl                 cmd:curl
jq                   cmd:jq
iproute2             cmd:ip
nftables             cmd:nft
'

# The servers of tools/stack.sh, which starts them itself.
stack_postgres='
postgresql           glob:/usr/lib/postgresql/*/bin/postgres
'
stack_rabbitmq='
rabbitmq-server      file:/usr/lib/rabbitmq/bin/rabbitmq-server
'
stack_redis='
redis-server         cmd:redis-server
'

stack_prometheus='
prometheus           cmd:promtool
'

present() {
    case $1 in
    cmd:*) command -v "${1#cmd:}" >/dev/null ;;
    file:*) [ -e "${1#file:}" ] ;;
    pc:*) pkg-config --exists "${1#pc:}" 2>/dev/null ;;
    py:*) /usr/bin/python3 -c "import ${1#py:}" 2>/dev/null ;;
    glob:*) compgen -G "${1#glob:}" >/dev/null ;;
    esac
}

list_only=no
if [ "${1:-}" = --list ]; then
    list_only=yes
    shift
fi

table=
for group in "$@"; do
    case $group in
    build) table+=$build ;;
    languages) table+=$languages ;;
    more-languages) table+=$more_languages ;;
    test) table+=$test ;;
    vm) table+=$vm ;;
    images) table+=$images ;;
    cluster) table+=$cluster ;;
    stack) table+=$stack_postgres$stack_rabbitmq$stack_redis$stack_prometheus ;;
    stack-postgres) table+=$stack_postgres ;;
    stack-rabbitmq) table+=$stack_rabbitmq ;;
    stack-redis) table+=$stack_redis ;;
    stack-prometheus) table+=$stack_prometheus ;;
    *)
        echo "install-deps: no group \"$group\": build, languages, more-languages, test, vm, images, cluster, stack" >&2
        exit 2
        ;;
    esac
done

missing=()
while read -r package probe; do
    [ -n "$package" ] || continue
    present "$probe" || missing+=("$package")
done <<<"$table"

[ ${#missing[@]} -gt 0 ] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if [ "$list_only" = yes ]; then
    printf '%s\n' "${missing[@]}"
    exit 1
fi

echo "Missing: ${missing[*]}" >&2

if ! command -v apt-get >/dev/null; then
    echo "This system has no apt-get: install the equivalents of these Debian packages." >&2
    exit 1
fi

as_root=()
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo)
    else
        echo "Run this, then try again:" >&2
        echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
fi

# Nothing that is installed here is to be started, or to wait for a server's start: the answer 101
# of this script tells Debian's packages so (invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap '"${as_root[@]}" rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" sh -c "cat >$policy && chmod 0755 $policy"
fi

export DEBIAN_FRONTEND=noninteractive
install=(apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "${missing[@]}")
# The package lists may be old or absent: fetch them once, and only when they are needed.
if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" </dev/null >&2; then
    "${as_root[@]}" apt-get update -q </dev/null >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" </dev/null >&2
fi
