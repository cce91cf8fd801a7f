#!/bin/sh
# Lints what is under deploy/, without network. Usage: check_deploy.sh BIN, the folder of the environment's programs.
set -eu
cd "$(dirname "$0")/.."
bin=$1

"$bin/hadolint" deploy/docker/*.Dockerfile
"$bin/check-jsonschema" --quiet --builtin-schema vendor.compose-spec compose.yaml
find deploy scripts .ci -type f \( -name '*.sh' -o -name run \) -exec "$bin/shellcheck" {} +
"$bin/yamllint" --strict compose.yaml deploy .hadolint.yaml .yamllint.yaml
"$bin/python" scripts/check_manifests.py "$bin/kubectl"

for file in deploy/terraform/*.tf; do
    "$bin/hcl2tojson" "$file" >/dev/null 2>&1 || {
        "$bin/hcl2tojson" "$file" >/dev/null
        exit 1
    }
done
# Where they are; neither is a Python package.
! command -v terraform >/dev/null 2>&1 || terraform -chdir=deploy/terraform fmt -check -diff 2>/dev/null
if command -v systemd-analyze >/dev/null 2>&1; then
    # Only what is wrong in the files themselves: their programs and users are not on this machine.
    for unit in deploy/vm/*.service; do
        said=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep -F "$(basename "$unit")" |
            grep -v 'is not executable' || true)
        [ -z "$said" ] || {
            echo "$said" >&2
            exit 1
        }
    done
fi
