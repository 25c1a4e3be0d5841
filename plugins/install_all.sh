#!/usr/bin/env bash
# Install the plugins that share an environment, with what their tests need: ``make plugins-together`` then runs the tests.
# A plugin with an install.sh of its own has an environment of its own.
# RELION and Slurm come from Debian's packages where this may install them; else the tests that need them are skipped and counted.
#   plugins/install_all.sh VENV
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?usage: plugins/install_all.sh VENV}

# provide PROGRAMS PACKAGES: install Debian's packages if one of the programs is missing.
provide() {
    local program missing=
    for program in $1; do
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086  # several words
        (timeout 300 apt-get -qq update && timeout 900 apt-get -qq install --yes --no-install-recommends $2) >/dev/null &&
            return 0
    fi
    echo "not to be installed here:$missing; tests that need them are skipped" >&2
}

export DEBIAN_FRONTEND=noninteractive
provide "relion_pipeliner relion_display Xvfb xwd" "relion relion-gui xvfb x11-apps"
provide "slurmctld slurmd sbatch scontrol munged" "slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins"

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
