#!/bin/sh
# A RabbitMQ user for one worker, with no more rights than a worker needs.
#
#   worker_user.sh NAME            make the user, or give it a new password; prints the password
#   worker_user.sh --revoke NAME   delete it and close its connections
#
# Environment: RABBITMQ_VHOST (default /), RABBITMQCTL (default rabbitmqctl).
# What each right is for, and what it still allows: docs/workers.md.
set -eu

vhost=${RABBITMQ_VHOST:-/}
ctl=${RABBITMQCTL:-rabbitmqctl}

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 64
}

check_name() {
    case $1 in
        '' | -* | *[!A-Za-z0-9._-]*)
            echo "the name may have letters, digits, dots, dashes and underscores only" >&2
            exit 64
            ;;
        guest)
            echo "guest is RabbitMQ's own user; choose another name" >&2
            exit 64
            ;;
    esac
}

case ${1:-} in
    --revoke)
        [ $# -eq 2 ] || usage
        check_name "$2"
        "$ctl" -q delete_user "$2"
        # The user first, so that none of its connections can come back.
        "$ctl" -q close_all_user_connections "$2" "the user was revoked" || true
        ;;
    '' | -h | --help)
        usage
        ;;
    *)
        [ $# -eq 1 ] || usage
        check_name "$1"
        password=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
        # The password goes by standard input: arguments can be read by every user of the machine.
        printf '%s\n' "$password" | "$ctl" -q add_user "$1" >/dev/null 2>&1 ||
            printf '%s\n' "$password" | "$ctl" -q change_password "$1" >/dev/null
        "$ctl" -q set_user_tags "$1"
        # configure nothing; write to the default exchange; read the job queue.
        "$ctl" -q set_permissions -p "$vhost" "$1" '^$' '^amq\.default$' '^image_generation_queue$'
        "$ctl" -q set_user_limits "$1" '{"max-connections": 8, "max-channels": 32}'
        printf '%s\n' "$password"
        ;;
esac
