#!/usr/bin/env bash
# Install every plugin into an environment of its own and run the tests of all of them; the last line is pytest's.
# RELION comes from Debian's packages where this may install them; else the tests that need it are skipped and counted.
#   plugins/test_all.sh VENV [PYTEST_ARGUMENT ...]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?usage: plugins/test_all.sh VENV [PYTEST_ARGUMENT ...]}
shift

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
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
pip install --constraint constraints.txt torch
folders=()
for project in plugins/*/pyproject.toml; do
    folders+=("./$(dirname "$project")[test]")
done
pip install --constraint constraints.txt ".[figures]" "${folders[@]}"
"$venv/bin/cryoplug" plugins list
"$venv/bin/python" -m pytest -c plugins/pytest.ini "$@" plugins/*/tests
