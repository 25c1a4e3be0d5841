#!/usr/bin/env bash
# Make a fresh environment with the CCP-EM Pipeliner, cryoplug and this plugin.
#   plugins/cryoplug-pipeliner/install.sh VENV
# The torch of constraints.txt comes first: whatever pip would choose by itself may be gigabytes larger.
set -euo pipefail
venv=$(realpath -m "${1:?usage: plugins/cryoplug-pipeliner/install.sh VENV}")
cd "$(dirname "$0")/../.."

"${PYTHON:-python3}" -m venv --clear "$venv"
install() {
    # Python compiles what it loads when it loads it: a tenth of what pip would compile beforehand.
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-compile --constraint constraints.txt "$@"
}
rm -rf build plugins/cryoplug-relion/build plugins/cryoplug-pipeliner/build  # setuptools would pack again what is there
install torch
install "ccpem-pipeliner==1.6.1" . ./plugins/cryoplug-relion "./plugins/cryoplug-pipeliner[test]"
"$venv/bin/pipeliner" --available_jobs cryoplug
