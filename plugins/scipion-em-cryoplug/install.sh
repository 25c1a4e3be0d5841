#!/usr/bin/env bash
# Install what this plugin needs: Scipion with the plugin into VENV, cryoplug with its PyTorch into VENV/cryoplug.
# Two environments, because Scipion pins an old NumPy. The plugin finds the second one by itself.
#   plugins/scipion-em-cryoplug/install.sh VENV
set -euo pipefail
venv=$(realpath -m "${1:?usage: plugins/scipion-em-cryoplug/install.sh VENV}")
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
pip() { "$1/bin/python" -m pip --disable-pip-version-check --quiet install --no-compile "${@:2}"; }

"$python" -m venv --clear "$venv"
# Editable: the commands of scipion-app 3.8.3 use importlib.util and forget to import it, which an editable install does.
pip "$venv" scipion-app --editable "./plugins/scipion-em-cryoplug[test]"

"$python" -m venv "$venv/cryoplug"
pip "$venv/cryoplug" --constraint constraints.txt torch
rm -rf build # setuptools would pack again what older versions left there
pip "$venv/cryoplug" --constraint constraints.txt .
"$venv/cryoplug/bin/cryoplug" --version
