#!/bin/sh
# Sees to RabbitMQ and PostgreSQL for the tests, which start private nodes of them by themselves.
# Nothing is done when they are installed, or when ITEMFORGE_TEST_AMQP_URL and ITEMFORGE_TEST_DATABASE_URL
# name running ones. As root on Debian or Ubuntu they are installed; otherwise it says what to install,
# and fails where CI=true (elsewhere the tests that need them are skipped).
set -eu

has_rabbitmq() {
    [ -n "${ITEMFORGE_TEST_AMQP_URL:-}" ] || {
        command -v erl >/dev/null 2>&1 && for script in /usr/lib/rabbitmq/bin/rabbitmq-server \
            /opt/rabbitmq/sbin/rabbitmq-server /opt/homebrew/sbin/rabbitmq-server \
            /usr/local/sbin/rabbitmq-server; do
            [ -f "$script" ] && return 0
        done
        return 1
    }
}

has_postgresql() {
    [ -n "${ITEMFORGE_TEST_DATABASE_URL:-}" ] || command -v initdb >/dev/null 2>&1 || {
        for program in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb \
            /opt/homebrew/opt/postgresql*/bin/initdb; do
            [ -f "$program" ] && return 0
        done
        return 1
    }
}

missing() {
    has_rabbitmq || printf '%s ' rabbitmq-server
    has_postgresql || printf '%s ' postgresql
}

packages=$(missing)
[ -n "$packages" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "itemforge: installing for the tests: $packages"
    # The packages would start their servers; the tests use none of those. Debian asks this file first.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM HUP
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of package names
    if { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >"$log" 2>&1; then
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
    fi
    packages=$(missing)
    [ -n "$packages" ] || exit 0
fi

echo "itemforge: the tests need RabbitMQ and PostgreSQL; this machine lacks: $packages" >&2
echo "  Debian, Ubuntu:  sudo apt-get install $packages" >&2
echo "  or name running ones in ITEMFORGE_TEST_AMQP_URL and ITEMFORGE_TEST_DATABASE_URL" >&2
if [ "${CI:-}" = true ]; then
    exit 1
fi
echo "  The tests that need them are skipped." >&2
