#!/usr/bin/env bash
# Install the plugins that share an environment, with what their tests need: ``make plugins-together`` then runs the tests.
# A plugin with an install.sh of its own has an environment of its own.
# RELION comes from Debian's packages where this may install them; else the tests that need it are skipped and counted.
#   plugins/install_all.sh VENV
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?usage: plugins/install_all.sh VENV}

install_relion() {
    export DEBIAN_FRONTEND=noninteractive
    timeout 300 apt-get -qq update &&
        timeout 900 apt-get -qq install --yes --no-install-recommends relion relion-gui xvfb x11-apps
}

missing=
for program in relion_pipeliner relion_display Xvfb xwd; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    install_relion >/dev/null || echo "not to be installed here:$missing; tests that need them are skipped" >&2
fi

rm -rf build plugins/*/build  # setuptools would pack again what older versions left there
"${PYTHON:-python3}" -m venv --clear "$venv"
# Python compiles what it loads when it loads it: a tenth of what pip would compile beforehand.
install() {
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-compile --constraint constraints.txt "$@"
}
install torch
folders=()
for project in plugins/*/pyproject.toml; do
    folder=$(dirname "$project")
    [ -e "$folder/install.sh" ] || folders+=("./$folder[test]")
done
install ".[figures]" "${folders[@]}" pytest-xdist
"$venv/bin/cryoplug" plugins list
