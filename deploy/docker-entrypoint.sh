#!/bin/sh
# Entry point of the container: before `run`, waits until the store can be reached and brings its tables up to
# date (unless it is told --no-migrate). Every other command is passed on as it is.
#
# RINGPROBE_WAIT_S  how long to wait for the store, in seconds (60); after that the container ends with what the
#                   last attempt said, and the engine's restart policy decides.
set -eu

[ $# -gt 0 ] || set -- run

# An absolute path or a name, so that the script can be tried with another program.
program=${RINGPROBE_PROGRAM:-ringprobe}

# Arguments that are not a command of ours are a program of their own: `docker run -it ringprobe bash`.
case $1 in
-* | bench | check | doctor | endpoints | help | migrate | run | target) ;;
*) exec "$@" ;;
esac

# The store that `run` is given on its command line; else the environment names it, for both commands.
store=
migrate=yes
previous=
for argument in "$@"; do
    case $argument in
    --store=*) store=${argument#--store=} ;;
    --no-migrate | --help | -h) migrate=no ;;
    esac
    if [ "$previous" = --store ]; then store=$argument; fi
    previous=$argument
done

wait_and_migrate() {
    limit=${RINGPROBE_WAIT_S:-60}
    case $limit in
    '' | *[!0-9]*)
        echo "docker-entrypoint: RINGPROBE_WAIT_S: '$limit' is not a number of seconds" >&2
        exit 2
        ;;
    esac
    # As process 1 a shell ignores signals that it has no trap for: `docker stop` would take ten seconds.
    trap 'exit 143' TERM
    trap 'exit 130' INT
    deadline=$(($(date +%s) + limit))
    while :; do
        if said=$("$program" migrate ${store:+--store "$store"} 2>&1); then
            break
        fi
        if [ "$(date +%s)" -ge "$deadline" ]; then
            echo "docker-entrypoint: gave up after $limit s: $said" >&2
            exit 1
        fi
        echo "docker-entrypoint: waiting for the store: $said" >&2
        # In the background, because a trap runs only after the command in the foreground.
        sleep 1 &
        wait $!
    done
    trap - TERM INT
}

if [ "$1" = run ] && [ "$migrate" = yes ]; then
    wait_and_migrate
fi
exec "$program" "$@"
