#!/bin/sh
# Builds the images and pushes them to a registry, so that `docker pull REGISTRY/worker:VERSION` gets them.
#
#   docker login                                            Docker Hub; or: gcloud auth configure-docker HOST
#   publish.sh [--dry-run] [--latest] [--cpu] REGISTRY      e.g. publish.sh docker.io/me, publish.sh HOST/PROJECT/itemforge
#
# REGISTRY/gateway and REGISTRY/worker are tagged with the version and the commit, with --latest also `latest`.
# --cpu also makes REGISTRY/worker:VERSION-cpu. A working tree with changes is refused: nobody could build it again.
set -eu
cd "$(dirname "$0")/../.."

dry=''
latest=''
cpu=''
registry=''
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry=yes ;;
        --latest) latest=yes ;;
        --cpu) cpu=yes ;;
        -*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
        *) registry=${1%/} ;;
    esac
    shift
done
[ -n "$registry" ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64; }

run() {
    if [ -n "$dry" ]; then echo "  would run: $*"; else "$@"; fi
}

if [ -n "$(git status --porcelain --untracked-files=no)" ] && [ -z "$dry" ]; then
    echo "publish: the working tree has changes; commit them first" >&2
    exit 1
fi
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/itemforge/__init__.py)
commit=$(git rev-parse --short=12 HEAD)

# image NAME SUFFIX [BUILD-ARGUMENT]
image() {
    name=$registry/$1
    run docker build --pull -f "deploy/docker/$1.Dockerfile" \
        --label "org.opencontainers.image.version=$version" \
        --label "org.opencontainers.image.revision=$commit" \
        --label "org.opencontainers.image.licenses=Apache-2.0" \
        ${3:+--build-arg "$3"} -t "$name:$version$2" -t "$name:$commit$2" .
    run docker push "$name:$version$2"
    run docker push "$name:$commit$2"
    if [ -n "$latest" ] && [ -z "$2" ]; then
        run docker tag "$name:$version" "$name:latest"
        run docker push "$name:latest"
    fi
    echo "publish: docker pull $name:$version$2"
}

image gateway ''
image worker ''
[ -z "$cpu" ] || image worker -cpu TORCH_INDEX=https://download.pytorch.org/whl/cpu
