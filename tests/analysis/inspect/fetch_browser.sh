#!/usr/bin/env bash
# Debian's Chromium without windows, unpacked into a folder of its own with the libraries that the
# machine lacks (280 MB): nothing is installed, no root is needed. `tests/analysis/inspect/browser.py` drives it.
set -euo pipefail
mkdir -p "$1" && cd "$1"
rm -rf apt root && mkdir -p apt/lists/partial apt/archives/partial root
apt=(apt-get -qq -o "Dir::State=$PWD/apt" -o "Dir::Cache=$PWD/apt"
     -o Dir::State::status=/var/lib/dpkg/status -o APT::Sandbox::User= -o Acquire::Retries=3)
"${apt[@]}" update
"${apt[@]}" install --dry-run --reinstall --no-install-recommends chromium-headless-shell |
  awk '$1 == "Inst" { print $2 }' > apt/needed
(cd apt && xargs "${apt[@]}" download < needed)
for package in apt/*.deb; do dpkg-deb -x "$package" root; done
rm -rf apt
cat > chromium <<'END'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
own=x86_64-linux-gnu
export LD_LIBRARY_PATH="$root/usr/lib/$own:$root/usr/lib/$own/pulseaudio:$root/lib/$own"
exec "$root/usr/lib/chromium/chromium-headless-shell" "$@"
END
chmod +x chromium
./chromium --version
