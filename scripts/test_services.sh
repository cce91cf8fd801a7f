#!/bin/sh
# Sees to RabbitMQ, PostgreSQL, Chromium, Prometheus and npm for the tests, which start private nodes by themselves;
# with --slow also to MediaWiki, PHP and debootstrap, which only `make test-slow` needs.
# Nothing is done when they are installed, or when ITEMFORGE_TEST_AMQP_URL and ITEMFORGE_TEST_DATABASE_URL
# name running ones. As root on Debian or Ubuntu they are installed; otherwise it says what to install,
# and fails where CI=true (elsewhere the tests that need them are skipped).
set -eu
slow=
[ "${1:-}" != --slow ] || slow=yes

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

has_monitoring() {
    for program in prometheus promtool amtool; do
        command -v "$program" >/dev/null 2>&1 || return 1
    done
    { command -v prometheus-alertmanager || command -v alertmanager; } >/dev/null 2>&1 &&
        { command -v prometheus-node-exporter || command -v node_exporter; } >/dev/null 2>&1
}

# Icons and game engines that tests look at come from npm, unless they lie in the cache already.
has_npm() {
    command -v npm >/dev/null 2>&1
}

has_browser() {
    command -v chromedriver >/dev/null 2>&1
}

# As tests/crawl/mediawiki.py looks at it. The package needs a web server, which is never started.
has_mediawiki() {
    # shellcheck disable=SC2016  # the $ is PHP's
    [ -f /usr/share/mediawiki/maintenance/install.php ] && command -v php >/dev/null 2>&1 &&
        php -r 'foreach (["dom", "intl", "mbstring", "pdo_sqlite", "xml"] as $name)
            if (!extension_loaded($name)) exit(1);'
}

# Debian roots, in which the images' steps and a machine's set-up are run; only root can make them.
has_debootstrap() {
    [ "$(id -u)" != 0 ] || command -v debootstrap >/dev/null 2>&1
}

missing() {
    has_rabbitmq || printf '%s ' rabbitmq-server
    has_postgresql || printf '%s ' postgresql
    has_browser || printf '%s ' chromium chromium-driver
    has_monitoring || printf '%s ' prometheus prometheus-alertmanager prometheus-node-exporter
    has_npm || printf '%s ' npm
    [ -z "$slow" ] || has_mediawiki ||
        printf '%s ' mediawiki php-cli php-intl php-mbstring php-sqlite3 php-xml
    [ -z "$slow" ] || has_debootstrap || printf '%s ' debootstrap
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

echo "itemforge: the tests need programs that this machine lacks: $packages" >&2
echo "  Debian, Ubuntu:  sudo apt-get install $packages" >&2
echo "  or name running ones in ITEMFORGE_TEST_AMQP_URL and ITEMFORGE_TEST_DATABASE_URL" >&2
if [ "${CI:-}" = true ]; then
    exit 1
fi
echo "  The tests that need them are skipped." >&2
