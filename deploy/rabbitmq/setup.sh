#!/bin/sh
# Makes a RabbitMQ ready for ItemForge; safe to repeat. Run it on the broker.
#
#   setup.sh [--vhost NAME] [--queue-type quorum|classic]
#
# It makes the virtual host if there is none, loads the policies and limits of definitions.json into it, and
# makes the users itemforge-gateway, itemforge-worker and itemforge-monitor with the least rights each needs.
# A user is made or gets a new password only where its variable is set:
#   GATEWAY_PASSWORD, WORKER_PASSWORD, MONITOR_PASSWORD
# The queue type is the virtual host's default for new queues (RabbitMQ 3.11 or newer). It is never changed
# where the job queue exists with another type: programs that declare it bare would be refused with 406.
# A worker on a rented machine gets a user of its own: worker_user.sh.
#
# Environment: RABBITMQCTL (default rabbitmqctl), RABBITMQ_NODE (another node than the local one).
set -eu

queue=image_generation_queue
vhost=/
queue_type=
here=$(dirname "$0")

usage() {
    sed -n '2,17s/^# \{0,1\}//p' "$0" >&2
    exit 64
}

while [ $# -gt 0 ]; do
    case $1 in
        --vhost) [ $# -gt 1 ] || usage; vhost=$2; shift 2 ;;
        --queue-type) [ $# -gt 1 ] || usage; queue_type=$2; shift 2 ;;
        *) usage ;;
    esac
done
case $vhost in
    '' | *[!A-Za-z0-9._/-]*) echo "a virtual host's name may have letters, digits, . _ - and / only" >&2; exit 64 ;;
esac
case $queue_type in
    '' | quorum | classic) ;;
    *) usage ;;
esac

ctl() {
    "${RABBITMQCTL:-rabbitmqctl}" -q ${RABBITMQ_NODE:+-n "$RABBITMQ_NODE"} "$@"
}

vhosts=$(ctl list_vhosts name --no-table-headers)
if printf '%s\n' "$vhosts" | grep -Fxq -- "$vhost"; then
    queues=$(ctl list_queues -p "$vhost" name type --no-table-headers)
    existing=$(printf '%s\n' "$queues" | awk -v q="$queue" '$1 == q { print $2 }')
    if [ -n "$existing" ] && [ -n "$queue_type" ] && [ "$existing" != "$queue_type" ]; then
        echo "$queue exists as a $existing queue in $vhost: its type stays (docs/operations.md says how to change it)" >&2
        queue_type=
    elif [ -n "$queue_type" ]; then
        # Older versions have no such command; what came of it is looked at below.
        ctl update_vhost_metadata "$vhost" --default-queue-type "$queue_type" >/dev/null 2>&1 || true
    fi
elif [ -z "$queue_type" ] || ! ctl add_vhost "$vhost" --default-queue-type "$queue_type" >/dev/null 2>&1; then
    ctl add_vhost "$vhost" >/dev/null
fi

users=
rights=

# user NAME PASSWORD TAG CONFIGURE WRITE READ
user() {
    [ -n "$2" ] || return 0
    case $2 in
        *[!A-Za-z0-9._~+/=-]*)
            echo "the password of $1 may have letters, digits and . _ ~ + / = - only: it is written into JSON and addresses" >&2
            exit 64
            ;;
    esac
    users="$users${users:+,}{\"name\": \"$1\", \"password\": \"$2\", \"tags\": \"$3\"}"
    rights="$rights${rights:+,}{\"user\": \"$1\", \"vhost\": \"$vhost\", \"configure\": \"$4\", \"write\": \"$5\", \"read\": \"$6\"}"
}

ours='image_generation_queue([.](retry[.][0-9]+[sm]|dead))?'
# The gateway makes the queues, publishes by the default exchange, and reads for its figures and `itemforge dead`.
user itemforge-gateway "${GATEWAY_PASSWORD:-}" '' "^$ours\$" "^(amq[.]default|$ours)\$" "^(amq[.]default|$ours)\$"
# Workers on machines of your own; what each right is for: docs/workers.md.
user itemforge-worker "${WORKER_PASSWORD:-}" '' '^$' '^amq[.]default$' '^image_generation_queue$'
# Dashboards: figures of every queue, no message.
user itemforge-monitor "${MONITOR_PASSWORD:-}" monitoring '^$' '^$' '^$'

# A file that only this user can read: it holds passwords for a moment, and arguments can be read by everybody.
definitions=$(mktemp)
trap 'rm -f "$definitions"' EXIT
# No virtual host stands in it: RabbitMQ 3.10 would take its default queue type away.
{
    printf '{\n'
    printf '  "users": [%s],\n  "permissions": [%s],\n' "$users" "$rights"
    sed -e 1d -e "s#\"vhost\": \"/\"#\"vhost\": \"$vhost\"#" "$here/definitions.json"
} >"$definitions"
ctl import_definitions "$definitions" >/dev/null

if [ -n "$queue_type" ] && ! ctl list_vhosts name default_queue_type --no-table-headers |
    grep -Fxq -- "$(printf '%s\t%s' "$vhost" "$queue_type")"; then
    echo "this RabbitMQ did not make $queue_type the default queue type of $vhost: too old, or it does not change that of a" \
        "virtual host that exists; new queues are as they were" >&2
fi
