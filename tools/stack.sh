#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The servers that Kiln uses when it is more than one process: PostgreSQL, RabbitMQ and Redis, from
# Debian's packages, for tests and for a look. They listen on 127.0.0.1 only, on ports of their own,
# keep everything below one folder, and touch no server that is there already.
#
#   tools/stack.sh up [NAME...]       install what is missing, start, wait until they answer
#   tools/stack.sh down [NAME...]     stop exactly what "up" has started
#   tools/stack.sh kill NAME          SIGKILL, as a failing machine would
#   tools/stack.sh status             which of them run
#   tools/stack.sh rabbitmqctl ARG... RabbitMQ's own tool, for this RabbitMQ
#   tools/stack.sh env                "export KILN_TEST_..._URL=...", which "up" prints too: to be eval'ed
#
# NAME is postgres, rabbitmq or redis; without one, all three. rabbitmq2 and rabbitmq3 are further nodes,
# which join the first one's cluster when they come up, and leave it when they go down. Environment:
#
#   KILN_STACK_DIR    the folder for data, logs and pid files (default: build/stack, or below /var/tmp
#                     where the servers' users cannot reach that)
#   KILN_STACK_PORT   the first of ten ports (default: 27100)
#
# As root each server runs as the user that its package made; otherwise all run as who calls this.
set -euo pipefail
umask 022

root=$(dirname "$(dirname "$(readlink -f "$0")")")
first_port=${KILN_STACK_PORT:-27100}

# As root the servers are users who may not reach a clone in root's home.
default_dir() {
    if [ "$(id -u)" != 0 ] || setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$root"; then
        echo "$root/build/stack"
    else
        echo "/var/tmp/kiln-stack-$first_port"
    fi
}
dir=$(readlink -m "${KILN_STACK_DIR:-$(default_dir)}")
postgres_port=$((first_port + 1))
redis_port=$((first_port + 3))
epmd_port=$((first_port + 5))
names=(postgres rabbitmq redis)
# Of each node of RabbitMQ: where it takes clients, and where the other nodes reach it.
declare -A rabbitmq_port=([rabbitmq]=$((first_port + 2)) [rabbitmq2]=$((first_port + 6)) [rabbitmq3]=$((first_port + 8)))
declare -A rabbitmq_dist_port=([rabbitmq]=$((first_port + 4)) [rabbitmq2]=$((first_port + 7)) [rabbitmq3]=$((first_port + 9)))

say() { echo "stack: $*" >&2; }
die() { say "$*"; exit 1; }

# ---- processes, each with a pid file ----

# A pid file counts only while its process is the one that was started: "PID START", where START is
# the time of its start, field 22 of /proc/PID/stat.
started_at() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # shellcheck disable=SC2086 # the fields behind the name in brackets are meant to be split
    set -- ${stat##*) }
    [ "$1" != Z ] && echo "${20}"
}

pid_of() { # NAME: prints the pid where it runs
    local pid start
    read -r pid start 2>/dev/null <"$dir/$1.pid" || return 1
    [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}

note_pid() { echo "$2 $(started_at "$2")" >"$dir/$1.pid"; } # NAME PID

as_user() { # USER COMMAND...: by exec, so that the pid stays
    local user=$1
    shift
    if [ "$(id -u)" = 0 ]; then
        exec setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs "$@"
    fi
    exec "$@"
}

launch() { # NAME USER COMMAND...
    local name=$1 user=$2
    shift 2
    # The lock must not live on in the servers.
    (as_user "$user" setsid "$@") 9>&- </dev/null >>"$dir/$name.log" 2>&1 &
    note_pid "$name" $!
}

answers() { (: >"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # PORT

await() { # NAME PORT SECONDS
    local until=$((SECONDS + $3))
    until answers "$2"; do
        pid_of "$1" >/dev/null || { tail -n 20 "$dir/$1.log" >&2; die "$1 did not start: $dir/$1.log"; }
        [ $SECONDS -lt $until ] || die "$1 does not answer on port $2 after $3 s: $dir/$1.log"
        sleep 0.1
    done
}

stop() { # NAME SIGNAL
    local pid until=$((SECONDS + 30))
    if pid=$(pid_of "$1"); then
        kill -s "$2" "$pid" 2>/dev/null || true
        # One that was stopped must go on to hear it.
        kill -s CONT "$pid" 2>/dev/null || true
        while pid_of "$1" >/dev/null; do
            if [ $SECONDS -ge $until ]; then
                say "$1 did not stop within 30 s: killed"
                kill -s KILL "$pid" 2>/dev/null || true
                until=$((SECONDS + 30))
            fi
            sleep 0.05
        done
    fi
    rm -f "$dir/$1.pid"
}

# Ends when nothing is left of it: a server that finds its predecessor's children, or its zombie, does
# not start.
kill_hard() { # PID
    local pids="$1" pid
    pids+=" $(pgrep -P "$1" | tr "\n" " " || true)"
    kill -s KILL "$1"
    for pid in $pids; do
        for _ in {1..500}; do
            [ -e "/proc/$pid" ] || break
            sleep 0.02
        done
    done
}

folder() { # NAME USER: the server's own
    mkdir -p "$dir/$1"
    if [ "$(id -u)" = 0 ]; then
        chown "$2:" "$dir/$1"
        setpriv --reuid="$2" --regid="$2" --clear-groups test -x "$dir/$1" ||
            die "the user $2 cannot reach $dir: choose another KILN_STACK_DIR"
    fi
    chmod 0700 "$dir/$1"
}

secret() { # FILE: the password in it, made at the first call
    [ -s "$1" ] || (umask 077 && head -c 18 /dev/urandom | base64 | tr '+/' '-_' >"$1")
    cat "$1"
}

# ---- PostgreSQL ----

url_of_postgres() {
    echo "export KILN_TEST_POSTGRES_URL=postgresql://kiln:$(secret "$dir/postgres.secret")@127.0.0.1:$postgres_port/kiln"
}

up_postgres() {
    local bin data=$dir/postgres/data
    bin=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin | sort -V | tail -n 1)
    [ -n "$bin" ] || die "PostgreSQL is not installed"
    folder postgres postgres
    if [ ! -e "$data/PG_VERSION" ]; then
        secret "$dir/postgres.secret" >/dev/null
        install -m 0600 "$dir/postgres.secret" "$dir/postgres/secret"
        [ "$(id -u)" != 0 ] || chown postgres: "$dir/postgres/secret"
        (as_user postgres "$bin/initdb" -D "$data" -U kiln -E UTF8 --locale=C.UTF-8 \
            --auth=scram-sha-256 --pwfile="$dir/postgres/secret") 9>&- </dev/null >"$dir/postgres.log" 2>&1 ||
            { tail -n 20 "$dir/postgres.log" >&2; die "could not make a PostgreSQL cluster: $dir/postgres.log"; }
    fi
    # "UTC" and "C": what tests compare must not depend on the machine.
    launch postgres postgres "$bin/postgres" -D "$data" -p "$postgres_port" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 \
        -c shared_buffers=128MB -c max_wal_size=2GB -c jit=off -c timezone=UTC -c log_timezone=UTC \
        -c log_line_prefix='%m [%p] %a ' -c cluster_name=kiln-stack
    await postgres "$postgres_port" 60
    export PGPASSWORD PGCONNECT_TIMEOUT=5
    PGPASSWORD=$(secret "$dir/postgres.secret")
    local psql=("$bin/psql" -XqAt -h 127.0.0.1 -p "$postgres_port" -U kiln) until=$((SECONDS + 60))
    # It listens before it takes connections, for as long as it recovers from a kill.
    until "${psql[@]}" -d postgres -c 'SELECT 1' >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || die "postgres takes no connections: $dir/postgres.log"
        sleep 0.1
    done
    [ "$("${psql[@]}" -d postgres -c "SELECT 1 FROM pg_database WHERE datname = 'kiln'")" = 1 ] ||
        "${psql[@]}" -d postgres -c 'CREATE DATABASE kiln'
}

# SIGINT: ends connections, and stops after a checkpoint.
down_postgres() { stop postgres INT; }

# ---- RabbitMQ ----

# All nodes that run, the first one first: a client tries them in turn.
url_of_rabbitmq() {
    local node hosts=127.0.0.1:${rabbitmq_port[rabbitmq]}
    for node in rabbitmq2 rabbitmq3; do
        ! pid_of "$node" >/dev/null || hosts+=,127.0.0.1:${rabbitmq_port[$node]}
    done
    echo "export KILN_TEST_RABBITMQ_URL=amqp://guest:guest@$hosts/"
}
url_of_rabbitmq2() { :; }
url_of_rabbitmq3() { :; }

rabbitmq_node_name() { # NODE
    local number=${1#rabbitmq}
    echo "kiln-$first_port${number:+-$number}@localhost"
}

rabbitmq_environment() { # NODE
    local own=$dir/$1
    # The nodes of a cluster know each other by the cookie in their home.
    export HOME=$dir/rabbitmq ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1 LANG=C.UTF-8
    # Without the files of the system's own RabbitMQ.
    export RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME
    RABBITMQ_NODENAME=$(rabbitmq_node_name "$1")
    export RABBITMQ_CONFIG_FILE=$own/rabbitmq.conf RABBITMQ_ADVANCED_CONFIG_FILE=$own/advanced.config
    export RABBITMQ_MNESIA_BASE=$own/mnesia RABBITMQ_LOG_BASE=$own/log RABBITMQ_LOGS=-
    export RABBITMQ_ENABLED_PLUGINS_FILE=$own/enabled_plugins RABBITMQ_GENERATED_CONFIG_DIR=$own/config
    export RABBITMQ_PID_FILE=$own/node.pid RABBITMQ_DIST_PORT=${rabbitmq_dist_port[$1]}
    # Runs the Erlang machine by exec, so that the pid is the server's.
    export RUNNING_UNDER_SYSTEMD=true
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
}

rabbitmqctl() { # NODE ARGUMENT...
    local node=$1
    shift
    (cd / && rabbitmq_environment "$node" && as_user rabbitmq /usr/lib/rabbitmq/bin/rabbitmqctl -q "$@") 9>&-
}

start_rabbitmq() { # NODE
    local own=$dir/$1
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || die "RabbitMQ is not installed"
    folder "$1" rabbitmq
    cat >"$own/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:${rabbitmq_port[$1]}
disk_free_limit.absolute = 200MB
vm_memory_high_watermark.absolute = 1GB
END
    echo '[].' >"$own/enabled_plugins"
    # Erlang's port mapper, which otherwise puts itself into the background for good.
    if ! pid_of epmd >/dev/null; then
        (cd / && rabbitmq_environment "$1" && launch epmd rabbitmq epmd -port "$epmd_port" -address 127.0.0.1)
        await epmd "$epmd_port" 10
    fi
    (cd / && rabbitmq_environment "$1" && launch "$1" rabbitmq /usr/lib/rabbitmq/bin/rabbitmq-server)
    await "$1" "${rabbitmq_port[$1]}" 90
}

up_rabbitmq() {
    local cookie=$dir/rabbitmq/.erlang.cookie
    folder rabbitmq rabbitmq
    if [ ! -e "$cookie" ]; then
        secret "$cookie" >/dev/null
        chmod 0400 "$cookie"
        [ "$(id -u)" != 0 ] || chown rabbitmq: "$cookie"
    fi
    start_rabbitmq rabbitmq
}

up_rabbitmq_member() { # NODE
    pid_of rabbitmq >/dev/null || die "$1 joins rabbitmq, which does not run"
    start_rabbitmq "$1"
    [ ! -e "$dir/$1/joined" ] || return 0
    {
        rabbitmqctl "$1" stop_app
        rabbitmqctl "$1" join_cluster "$(rabbitmq_node_name rabbitmq)"
        rabbitmqctl "$1" start_app
    } >>"$dir/$1.log" 2>&1
    await "$1" "${rabbitmq_port[$1]}" 60
    touch "$dir/$1/joined"
}
up_rabbitmq2() { up_rabbitmq_member rabbitmq2; }
up_rabbitmq3() { up_rabbitmq_member rabbitmq3; }

# It leaves the cluster for good: queues that are made later must not count on it.
down_rabbitmq_member() { # NODE
    if pid_of rabbitmq >/dev/null && [ -e "$dir/$1/joined" ]; then
        stop "$1" TERM
        rabbitmqctl rabbitmq forget_cluster_node "$(rabbitmq_node_name "$1")"
        rm -rf "${dir:?}/$1"
    fi
    stop "$1" TERM
}
down_rabbitmq2() { down_rabbitmq_member rabbitmq2; }
down_rabbitmq3() { down_rabbitmq_member rabbitmq3; }

down_rabbitmq() {
    down_rabbitmq_member rabbitmq3
    down_rabbitmq_member rabbitmq2
    stop rabbitmq TERM
    stop epmd TERM
}

# ---- Redis ----

url_of_redis() { echo "export KILN_TEST_REDIS_URL=redis://127.0.0.1:$redis_port/0"; }

up_redis() {
    command -v redis-server >/dev/null || die "Redis is not installed"
    folder redis redis
    launch redis redis redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$dir/redis" \
        --save '' --appendonly no --daemonize no --maxmemory 256mb --maxmemory-policy allkeys-lru
    await redis "$redis_port" 20
}

down_redis() { stop redis TERM; }

# ---- all ----

up() {
    local packages=("${@/#/stack-}")
    "$root/tools/install-deps.sh" "${packages[@]/#stack-rabbitmq[23]/stack-rabbitmq}"
    mkdir -p "$dir"
    exec 9>"$dir/lock"
    flock 9
    for name in "$@"; do
        pid_of "$name" >/dev/null || "up_$name"
    done
    for name in "$@"; do
        "url_of_$name"
    done
}

down() {
    [ -d "$dir" ] || return 0
    exec 9>"$dir/lock"
    flock 9
    for name in "$@"; do
        "down_$name"
    done
}

verb=${1:-}
[ $# -eq 0 ] || shift
if [ "$verb" = rabbitmqctl ]; then
    rabbitmqctl rabbitmq "$@"
    exit
fi
for name in "$@"; do
    case $name in
    postgres | rabbitmq | rabbitmq[23] | redis) ;;
    *) die "there is no \"$name\" in the stack: ${names[*]}" ;;
    esac
done
[ $# -gt 0 ] || [ "$verb" = kill ] || set -- "${names[@]}"

case $verb in
up) up "$@" ;;
down) down "$@" ;;
kill)
    [ $# -eq 1 ] || die "usage: stack.sh kill NAME"
    pid=$(pid_of "$1") || die "$1 does not run"
    kill_hard "$pid"
    ;;
status)
    for name in "$@"; do
        if pid=$(pid_of "$name"); then echo "$name: pid $pid"; else echo "$name: stopped"; fi
    done
    ;;
env)
    for name in "$@"; do
        "url_of_$name"
    done
    ;;
*)
    sed -n '4,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
