#!/usr/bin/env bash
# `make test`: gets Debian's Chromium for the tests that drive a browser, where there is none yet.
# It never fails: without a browser those tests skip and say why.
set -euo pipefail

for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then
    exit 0
  fi
done

go_without() {
  echo "No browser for the tests that drive one, so they will skip: $1." >&2
  exit 0
}

if ! command -v apt-get > /dev/null; then
  go_without "none of chromium, chromium-browser and google-chrome is on the PATH, and there is no apt-get to install one"
fi
as_root=(env DEBIAN_FRONTEND=noninteractive)
if [ "$(id -u)" -ne 0 ]; then
  if ! sudo -n true 2> /dev/null; then
    go_without "installing the package chromium needs root or sudo without a password"
  fi
  as_root=(sudo -n "${as_root[@]}")
fi

echo "Installing Debian's package chromium, for the tests that drive a browser." >&2
if ! said=$("${as_root[@]}" apt-get update 2>&1); then
  go_without "apt-get update failed (${said##*$'\n'})"
fi
if ! said=$("${as_root[@]}" apt-get install -y --no-install-recommends chromium 2>&1); then
  go_without "apt-get install chromium failed (${said##*$'\n'})"
fi
