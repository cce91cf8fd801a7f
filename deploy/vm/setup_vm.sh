#!/usr/bin/env bash
# From an ssh login on a rented Ubuntu 22.04 or 24.04 machine to a running worker. Safe to repeat.
#
#   sudo bash deploy/vm/setup_vm.sh [options]
#
#   --dry-run         say what would be done, and do nothing
#   --docker          run the worker's image instead of an environment of its own
#   --image IMAGE     which image (default itemforge-worker:0.1.0, built here if no registry has it)
#   --env FILE        settings to begin with; becomes /etc/itemforge/worker.env
#   --style NAME      what `itemforge models pull` brings (default tsuki, with Stable Diffusion 1.5); none: the
#                     small model that ships with the project
#   --no-gpu          a worker on the CPU; no driver is looked for
#   --any-gpu         accept a GPU that is less than an RTX 3060
#   --no-start        set everything up, start nothing
#   --no-exporter     no node exporter
#
# Filebeat is installed where ELASTICSEARCH_HOST is set, in the environment or in the settings.
# Every step first looks whether it is done. docs/operations.md tells the same by hand.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
prefix=/opt/itemforge
venv=$prefix/venv
etc=/etc/itemforge
home=/var/lib/itemforge
user=itemforge
settings=$etc/worker.env

# The least: what the original service asked for.
least_cuda=11.8
least_memory=11000 # MiB; an RTX 3060 with its 12 GB says 12288
least_capability=8.6

dry='' docker='' image=itemforge-worker:0.1.0 given='' style=tsuki gpu=yes any_gpu='' start=yes exporter=yes
torch_index=''

fail() {
    echo "setup_vm: $*" >&2
    exit 1
}

# What ends the script ends it; with --dry-run it is told, and the rest is shown too.
stop() {
    [ -n "$dry" ] || fail "$@"
    echo "  would stop: $*"
}

say() { echo "setup_vm: $*"; }

# What stays to be done by hand: told at the end, with exit code 1; the rest goes on.
left=''
later() { left+="setup_vm: left to do: $*"$'\n'; }

# Do it, or with --dry-run say it.
run() {
    if [ -n "$dry" ]; then
        echo "  would run: $*"
    else
        "$@"
    fi
}

# put MODE OWNER FILE: what comes by standard input, if the file has not that already.
put() {
    local new
    new=$(mktemp)
    cat >"$new"
    if cmp -s "$new" "$3"; then
        rm -f "$new"
    elif [ -n "$dry" ]; then
        rm -f "$new"
        echo "  would write: $3"
    else
        install -D -m "$1" -o "${2%:*}" -g "${2#*:}" "$new" "$3"
        rm -f "$new"
        say "wrote $3"
    fi
}

at_least() { # VERSION LEAST
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# A setting's value in the settings file, or nothing.
setting() {
    local file=$settings
    [ -r "$file" ] || file=$given
    if [ -n "$file" ] && [ -r "$file" ]; then
        sed -n "s/^$1=//p" "$file" | tail -n 1
    fi
}

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

updated=''
packages() {
    local missing=() name
    for name in "$@"; do
        installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ -z "$updated" ]; then
        run apt-get update -qq
        updated=yes
    fi
    run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

has_systemd() { [ -d /run/systemd/system ]; }

# ── what the machine is ────────────────────────────────────────────────────────────────────────

check_system() {
    [ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "run it as root: sudo bash $0"
    [ -r /etc/os-release ] || fail "this is no Ubuntu or Debian: it has no /etc/os-release"
    # shellcheck disable=SC1091  # the machine's own
    . /etc/os-release
    case "${ID:-} ${VERSION_ID:-}" in
        'ubuntu 22.04' | 'ubuntu 24.04' | 'debian 12') say "$PRETTY_NAME" ;;
        *) stop "Ubuntu 22.04 or 24.04 (or Debian 12) is needed, and this is ${PRETTY_NAME:-unknown}" ;;
    esac
    [ "$(uname -m)" = x86_64 ] || stop "an x86_64 machine is needed, and this is $(uname -m)"
    [ -f "$root/pyproject.toml" ] || [ -n "$docker" ] ||
        fail "run the script from a checkout of the project: git clone ADDRESS itemforge; sudo bash itemforge/deploy/vm/setup_vm.sh"
}

# The driver decides which build of torch can run: the wheels bring CUDA, the driver must know that version.
check_gpu() {
    if [ -z "$gpu" ]; then
        torch_index=https://download.pytorch.org/whl/cpu
        say "no GPU asked for"
        return 0
    fi
    if ! command -v nvidia-smi >/dev/null 2>&1; then
        stop "there is no nvidia-smi, so no NVIDIA driver. On a rented machine take a template with the driver; else: \
apt-get install nvidia-driver-580-server, restart, and run this again. Without a GPU: --no-gpu"
        return 0
    fi
    local line name driver memory capability cuda
    if ! line=$(nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader,nounits); then
        stop "nvidia-smi finds no GPU: see 'nvidia-smi' and 'dmesg | grep -i nvrm'; a restart helps after a driver's update"
        return 0
    fi
    IFS=, read -r name driver memory capability <<<"$line"
    driver=${driver// /} memory=${memory// /} capability=${capability// /}
    cuda=$(nvidia-smi | sed -n 's/.*CUDA Version: *\([0-9.]*\).*/\1/p')
    cuda=${cuda%%$'\n'*}
    say "$name, $memory MiB, compute capability $capability, driver $driver, which knows CUDA up to ${cuda:-?}"
    at_least "${cuda:-0}" "$least_cuda" || stop "CUDA $least_cuda is the least; update the driver to 580 or newer"
    if [ -z "$any_gpu" ] && { ! at_least "$capability" "$least_capability" || [ "$memory" -lt "$least_memory" ]; }; then
        stop "an RTX 3060 (12 GB, compute capability $least_capability) is the least; rent another, or try it: --any-gpu"
    fi
    if at_least "$cuda" 13.0; then
        torch_index='' # PyPI's build: CUDA 13.0, driver 580 or newer
    elif at_least "$cuda" 12.0; then
        torch_index=https://download.pytorch.org/whl/cu126 # any driver of CUDA 12, 525 or newer
    else
        stop "the driver $driver knows CUDA $cuda, and torch is built for 12.6 and newer: update it to 525, better 580, or newer"
    fi
}

# ── the worker in an environment of its own ────────────────────────────────────────────────────

python=''
find_python() {
    local name
    for name in python3.11 python3 python3.12 python3.13; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
            python=$name
            return 0
        fi
    done
    return 1
}

# Ubuntu 22.04 ships 3.10, and 3.11 as a release candidate only; deadsnakes has the finished one.
install_python() {
    packages ca-certificates
    # shellcheck disable=SC1091
    . /etc/os-release
    if [ "$ID $VERSION_ID" = 'ubuntu 22.04' ]; then
        if ! installed python3.11-venv; then
            packages software-properties-common
            run add-apt-repository -y ppa:deadsnakes/ppa
            updated=''
        fi
        packages python3.11 python3.11-venv
    else
        packages python3 python3-venv
    fi
    find_python || [ -n "$dry" ] || fail "no Python 3.11, 3.12 or 3.13 was found after its installation"
    say "Python: ${python:-python3.11}"
}

make_user() {
    getent passwd "$user" >/dev/null ||
        run useradd --system --user-group --home-dir "$home" --shell /usr/sbin/nologin "$user"
    [ -d "$home" ] || run install -d -m 0750 -o "$user" -g "$user" "$home"
    [ -d /var/log/itemforge ] || run install -d -m 0750 -o "$user" -g "$user" /var/log/itemforge
    [ -d "$etc" ] || run install -d -m 0750 -o root -g "$user" "$etc"
}

# What is installed is as the checkout says: the stamp is a hash of all that went in.
install_worker() {
    local stamp
    stamp=$({ echo "$torch_index"; cd "$root" && find pyproject.toml constraints.txt src starter -type f \
        ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum; } | sha256sum | cut -d ' ' -f 1)
    if [ -x "$venv/bin/itemforge" ] && [ "$(cat "$prefix/installed" 2>/dev/null)" = "$stamp" ]; then
        say "the worker is installed: $("$venv/bin/itemforge" --version)"
        return 0
    fi
    run rm -f "$prefix/installed"
    [ -x "$venv/bin/pip" ] || run "${python:-python3.11}" -m venv "$venv"
    local needs extra=()
    needs=$(mktemp)
    (cd "$root" && "${python:-python3}" deploy/docker/requirements.py worker +wandb) >"$needs" ||
        [ -n "$dry" ] || fail "the list of requirements cannot be made"
    [ -z "$torch_index" ] || extra=(--extra-index-url "$torch_index")
    say "installing the worker's libraries (several GB with CUDA)"
    run "$venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$root/constraints.txt" \
        "${extra[@]}" --requirement "$needs"
    run "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$root"
    rm -f "$needs"
    run "$venv/bin/pip" check
    [ -n "$dry" ] || echo "$stamp" >"$prefix/installed"
}

check_torch() {
    [ -n "$gpu" ] || return 0
    run "$venv/bin/python" -c '
import torch
if not torch.cuda.is_available():
    raise SystemExit(f"setup_vm: torch {torch.__version__} with CUDA {torch.version.cuda} cannot use the GPU; update the driver")
print(f"setup_vm: torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name(0)}")'
}

write_settings() {
    if [ -n "$given" ]; then
        put 0640 "root:$user" "$settings" <"$given"
    elif [ ! -e "$settings" ]; then
        {
            cat "$root/deploy/vm/worker.env.example"
            if [ "$style" != none ]; then
                echo "ITEMFORGE_MODEL=sd15"
                echo "ITEMFORGE_DEFAULT_STYLE=$style"
                echo "# for \`itemforge models pull $style\`"
                echo "#WANDB_API_KEY="
            fi
        } | put 0640 "root:$user" "$settings"
    fi
}

configured() {
    [ -n "$(setting API_GATEWAY_URL)" ] && { [ -n "$(setting ITEMFORGE_AMQP_URL)" ] || [ -n "$(setting RABBITMQ_HOST)" ]; }
}

# As the worker's user, with its settings and nothing of root's.
as_worker() {
    if [ -n "$dry" ]; then
        echo "  would run, as $user with the settings of $settings: itemforge $*"
        return 0
    fi
    # shellcheck disable=SC2016  # the inner shell expands it
    env -i PATH="$venv/bin:/usr/bin:/bin" HOME="$home" LANG=C.UTF-8 SETTINGS="$settings" HOMEDIR="$home" \
        setpriv --reuid "$user" --regid "$user" --init-groups sh -c '
            while IFS= read -r line; do
                case $line in "" | \#*) ;; *=*) export "${line?}" ;; esac
            done <"$SETTINGS"
            cd "$HOMEDIR" && exec itemforge "$@"' sh "$@"
}

pull_models() {
    [ "$style" != none ] || return 0
    say "itemforge models pull $style (checks only what is there)"
    as_worker models pull "$style" || later "the models did not come: mend it (WANDB_API_KEY in $settings?) and run this again"
}

install_service() {
    put 0644 root:root /etc/systemd/system/itemforge-worker.service <"$root/deploy/vm/itemforge-worker.service"
    put 0644 root:root /etc/logrotate.d/itemforge <"$root/deploy/vm/logrotate.conf"
    packages logrotate
    if [ -n "$dry" ] || command -v systemctl >/dev/null 2>&1; then
        ! has_systemd || run systemctl daemon-reload
        run systemctl enable --quiet itemforge-worker.service
    fi
}

start_service() {
    configured || later "fill in $settings (gateway, broker, key), then: systemctl start itemforge-worker"
    if [ -n "$left" ] || [ -z "$start" ] || ! { [ -n "$dry" ] || has_systemd; }; then
        say "not started; do it by: systemctl start itemforge-worker"
    else
        run systemctl restart itemforge-worker.service
        say "started; its log: tail -f /var/log/itemforge/worker.log; it is ready when curl -s localhost:9464/readyz says so"
    fi
}

# ── the worker in a container ──────────────────────────────────────────────────────────────────

install_docker() {
    packages ca-certificates curl gnupg
    command -v docker >/dev/null 2>&1 || packages docker.io
    [ -n "$gpu" ] || return 0
    if ! installed nvidia-container-toolkit; then
        local key=/usr/share/keyrings/nvidia-container-toolkit.gpg
        local address=https://nvidia.github.io/libnvidia-container
        run sh -c "curl -fsSL $address/gpgkey | gpg --dearmor --yes -o $key"
        put 0644 root:root /etc/apt/sources.list.d/nvidia-container-toolkit.list <<<"deb [signed-by=$key] $address/stable/deb/amd64 /"
        updated=''
        packages nvidia-container-toolkit
        run nvidia-ctk runtime configure --runtime=docker
        run systemctl restart docker
    fi
}

get_image() {
    local build_arguments=()
    [ -z "$torch_index" ] || build_arguments=(--build-arg "TORCH_INDEX=$torch_index")
    case $image in
        */*) run docker pull --quiet "$image" ;;
        *)
            [ -f "$root/pyproject.toml" ] || fail "no checkout to build $image from; name an image of a registry: --image"
            run docker build --quiet -f "$root/deploy/docker/worker.Dockerfile" -t "$image" "${build_arguments[@]}" "$root"
            ;;
    esac
}

run_container() {
    local gpus=() mounts=() name=itemforge-worker
    [ -z "$gpu" ] || gpus=(--gpus all)
    [ ! -f "$etc/gcs-key.json" ] || mounts=(-v "$etc/gcs-key.json:/app/gcs-key.json:ro" -e GOOGLE_APPLICATION_CREDENTIALS=/app/gcs-key.json)
    # The container's home is /app, and it runs as the user that owns the files outside.
    local common=(--user "$(id -u "$user" 2>/dev/null || echo 1000):$(id -g "$user" 2>/dev/null || echo 1000)"
        --env-file "$settings" -e ITEMFORGE_HOME=/app -v "$home:/app" "${mounts[@]}")
    if [ "$style" != none ]; then
        run docker run --rm "${common[@]}" "$image" models pull "$style" ||
            later "the models did not come: mend it (WANDB_API_KEY in $settings?) and run this again"
    fi
    configured || later "fill in $settings (gateway, broker, key), then run this again"
    [ -n "$start" ] && [ -z "$left" ] || return 0
    if [ -n "$(docker ps -aq --filter "name=^$name\$" 2>/dev/null)" ]; then
        run docker stop --time 660 "$name" # it drains
        run docker rm "$name"
    fi
    run docker run --detach --restart always "${gpus[@]}" "${common[@]}" --publish 127.0.0.1:9464:9464 \
        --stop-timeout 660 --log-driver json-file --log-opt max-size=50m --log-opt max-file=5 --name "$name" "$image"
    say "started; its log: docker logs -f $name"
}

# ── watching ───────────────────────────────────────────────────────────────────────────────────

install_exporter() {
    [ -n "$exporter" ] || return 0
    packages prometheus-node-exporter
    put 0644 root:root /etc/default/prometheus-node-exporter <<<'ARGS="--web.listen-address=:9100"'
    if [ -n "$dry" ] || has_systemd; then
        run systemctl enable --quiet --now prometheus-node-exporter.service
    fi
    say "node exporter: port 9100 (the rented machine's template must open it; let Prometheus' address in alone)"
}

install_filebeat() {
    local host=${ELASTICSEARCH_HOST:-$(setting ELASTICSEARCH_HOST)} file
    if [ -z "$host" ]; then
        say "no ELASTICSEARCH_HOST, so no Filebeat"
        return 0
    fi
    if ! installed filebeat; then
        packages ca-certificates curl gnupg
        local key=/usr/share/keyrings/elastic.gpg
        run sh -c "curl -fsSL https://artifacts.elastic.co/GPG-KEY-elasticsearch | gpg --dearmor --yes -o $key"
        put 0644 root:root /etc/apt/sources.list.d/elastic-8.x.list \
            <<<"deb [signed-by=$key] https://artifacts.elastic.co/packages/8.x/apt stable main"
        updated=''
        packages filebeat
    fi
    for file in filebeat.yml itemforge-template.json itemforge-ilm.json; do
        put 0600 root:root "/etc/filebeat/$file" <"$root/deploy/filebeat/$file"
    done
    # The package's unit reads no file of settings by itself.
    put 0644 root:root /etc/systemd/system/filebeat.service.d/itemforge.conf <<<"[Service]
EnvironmentFile=-$etc/filebeat.env"
    # Addresses, user and password of Elasticsearch and Kibana; what is set in the environment wins.
    {
        grep -hE '^(ELASTICSEARCH|KIBANA)_[A-Z_]+=' "$settings" 2>/dev/null || true
        env | grep -E '^(ELASTICSEARCH|KIBANA)_[A-Z_]+=' || true
    } | put 0600 root:root "$etc/filebeat.env"
    run filebeat test config
    ! has_systemd || run systemctl daemon-reload
    if [ -n "$dry" ] || has_systemd; then
        run systemctl enable --quiet --now filebeat.service
    fi
}

# ── all of it ──────────────────────────────────────────────────────────────────────────────────

usage() {
    sed -n '2,20s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry=yes ;;
        --docker) docker=yes ;;
        --image | --env | --style)
            [ -n "${2:-}" ] || usage 64 >&2
            case $1 in
                --image) image=$2 ;;
                --env) given=$2 ;;
                --style) style=$2 ;;
            esac
            shift
            ;;
        --no-gpu) gpu= ;;
        --any-gpu) any_gpu=yes ;;
        --no-start) start= ;;
        --no-exporter) exporter= ;;
        -h | --help) usage 0 ;;
        *) usage 64 >&2 ;;
    esac
    shift
done
[ -z "$given" ] || [ -r "$given" ] || fail "$given cannot be read"

check_system
check_gpu
make_user
write_settings
if [ -n "$docker" ]; then
    install_docker
    get_image
    run_container
else
    install_python
    install_worker
    check_torch
    pull_models
    install_service
    start_service
fi
install_exporter
install_filebeat
if [ -z "$docker" ] && configured; then
    as_worker doctor || later "what itemforge doctor calls BROKEN"
fi
if [ -n "$left" ]; then
    printf '%s' "$left" >&2
    exit 1
fi
say "done"
