#!/usr/bin/env bash
# Make base images for docker/Dockerfile on a Debian machine that reaches no image registry; needs root and debootstrap.
#   pointloom-base:test    a small Debian with Python (BASE)
#   pointloom-build:test   the same and a folder of wheels, fetched by this machine's pip (BUILD_BASE)
# Only wheels go in: pip's configuration, its certificates and passwords stay on this machine. Made again when
# requirements or constraints change.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! docker image inspect pointloom-base:test >/dev/null 2>&1; then
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -1)
  echo "Base image: Debian $release by debootstrap"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$release" "$work/root" "$mirror" \
    >"$work/log" || { tail -20 "$work/log"; exit 1; }
  rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/{doc,man,locale}/*
  apt-config dump | grep '^Acquire::.*"' >"$work/root/etc/apt/apt.conf.d/99host"
  tar -C "$work/root" --create . | docker import - pointloom-base:test >/dev/null
fi

for group in core render torch multimodal; do "$python" docker/requirements.py $group; done >"$work/requirements.txt"
wanted=$(cat constraints.txt "$work/requirements.txt" | sha256sum | cut -c1-16)
if [ "$(docker image inspect --format '{{index .Config.Labels "wheels"}}' pointloom-build:test 2>/dev/null)" != "$wanted" ]; then
  inside=$(docker run --rm pointloom-base:test python3 -c 'import sys; print(*sys.version_info[:2])')
  here=$("$python" -c 'import sys; print(*sys.version_info[:2])')
  [ "$inside" = "$here" ] || { echo "the image has Python $inside, this machine's $python is $here: give PYTHON=..."; exit 1; }
  echo "Build image: wheels of the pinned versions"
  "$python" -m pip wheel --quiet --no-cache-dir --constraint constraints.txt --wheel-dir "$work/context/wheels" \
    --requirement "$work/requirements.txt" 'setuptools>=77'
  printf '%s\n' 'FROM pointloom-base:test' 'COPY wheels /wheels' 'ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels' >"$work/context/Dockerfile"
  docker build --quiet --label "wheels=$wanted" --tag pointloom-build:test "$work/context" >/dev/null
fi
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep -E '^pointloom-(base|build):test '
