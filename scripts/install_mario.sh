#!/usr/bin/env bash
# `make test`: gets Super Mario Bros. for the tests that play it, where it is not installed yet.
# Below Python 3.13 that compiles the console's emulator, which takes a C++ compiler. It never fails:
# without the game those tests skip and say why.
#
# usage: scripts/install_mario.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1

has_game='import sys; from rlagents.envs.mario.rom import why_missing; sys.exit(bool(why_missing()))'
if "$python" -c "$has_game"; then
  exit 0
fi
echo "Installing Super Mario Bros., for the tests that play it." >&2
if ! said=$("$python" -m pip install --quiet --editable '.[mario]' \
  --constraint constraints.txt 2>&1); then
  echo "No Super Mario Bros. for the tests that play it, so they will skip: pip failed" \
    "(${said##*$'\n'})." >&2
fi
