#!/usr/bin/env bash
# Make the environments of the tests: VENV with cryosparc-tools 5, and VENV-4.7 beside it with cryosparc-tools 4.7.
#   plugins/cryoplug-cryosparc/install.sh VENV
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:?usage: plugins/cryoplug-cryosparc/install.sh VENV}
python=${PYTHON:-python3}

rm -rf build plugins/cryoplug-cryosparc/build  # setuptools would pack again what older versions left there
"$python" -m venv --clear "$venv"
# Python compiles what it loads when it loads it: a tenth of what pip would compile beforehand.
install() {
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@" --no-compile --constraint constraints.txt
}
install install torch
install install . "./plugins/cryoplug-cryosparc[test]" "cryosparc-tools~=5.0.0"

# All but cryosparc-tools itself is the same, so the second environment takes it from the first one.
"$python" -m venv --clear --without-pip "$venv-4.7"
install --python "$venv-4.7/bin/python" install --no-deps "cryosparc-tools~=4.7.0"
site() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
site "$venv" > "$(site "$venv-4.7")/same_as_for_5.pth"

for environment in "$venv" "$venv-4.7"; do
    "$environment/bin/python" -c 'import cryosparc, cryoplug_cryosparc; print("cryosparc-tools", cryosparc.__version__)'
done
