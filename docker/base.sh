#!/usr/bin/env bash
# Make base images for docker/Dockerfile, with the versions that this machine's pip finds (PYTHON=... for another Python).
#   docker/base.sh         pointloom-base:test       a small Debian with Python (BASE): the public image or, where no
#                                                    registry answers, debootstrap's
#                          pointloom-build:test      the same and a folder of wheels, fetched by this machine's pip (BUILD_BASE)
#   docker/base.sh gpu     pointloom-base:test, pointloom-build-gpu:test      with torch's CUDA build (several GB)
# Only wheels go in: pip's configuration, its certificates and passwords stay on this machine. Made again when
# requirements or constraints change. debootstrap needs Debian and root.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
case ${1:-cpu} in
  cpu) build=pointloom-build:test torch='==' ;;
  gpu) build=pointloom-build-gpu:test torch='===' ;;  # exactly PyPI's version: no 2.13.0+cpu that pip would prefer
  *) echo "usage: docker/base.sh [cpu | gpu]"; exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version() { "$@" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

from_registry() {
  local public
  public=python:$(version "$python")-slim-bookworm
  timeout 300 docker pull --quiet "$public" && docker tag "$public" pointloom-base:test
}

from_debian() {
  local release mirror
  command -v debootstrap >/dev/null || { echo "debootstrap is not installed"; return 1; }
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $release" 'Component: main' | head -1)
  echo "Base image: Debian $release by debootstrap"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$release" "$work/root" "$mirror" \
    >"$work/log" 2>&1 || { tail -20 "$work/log"; return 1; }
  rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/{doc,man,locale}/*
  apt-config dump | grep '^Acquire::.*"' >"$work/root/etc/apt/apt.conf.d/99host"
  tar -C "$work/root" --create . | docker import - pointloom-base:test >/dev/null
}

docker image inspect pointloom-base:test >/dev/null 2>&1 || from_registry || from_debian

for group in core render torch multimodal; do "$python" docker/requirements.py $group; done >"$work/requirements.txt"
sed "s/^torch==/torch$torch/" constraints.txt >"$work/constraints.txt"
wanted=$(cat "$work/constraints.txt" "$work/requirements.txt" | sha256sum | cut -c1-16)
if [ "$(docker image inspect --format '{{index .Config.Labels "wheels"}}' "$build" 2>/dev/null)" != "$wanted" ]; then
  inside=$(version docker run --rm pointloom-base:test python3)
  here=$(version "$python")
  [ "$inside" = "$here" ] || { echo "the image has Python $inside, this machine's $python is $here: give PYTHON=..."; exit 1; }
  echo "Build image: wheels of the pinned versions"
  "$python" -m pip wheel --quiet --no-cache-dir --constraint "$work/constraints.txt" --wheel-dir "$work/context/wheels" \
    --requirement "$work/requirements.txt" 'setuptools>=77'
  printf '%s\n' 'FROM pointloom-base:test' 'COPY wheels /wheels' 'ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels' >"$work/context/Dockerfile"
  docker build --quiet --label "wheels=$wanted" --tag "$build" "$work/context" >/dev/null
fi
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep -E "^(pointloom-base:test|$build) "
