#!/usr/bin/env bash
# Prints the path of a Chromium to test with: the system's own, else Debian's package (as root, where apt is),
# else the one that Playwright downloads. Everything but the path goes to standard error.
set -euo pipefail

find_system() {
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        command -v "$name" && return 0
    done
    return 1
}

find_playwright() {
    python - <<'PYTHON'
from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
PYTHON
}

find_system && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "Chromium is not installed: installing Debian's package" >&2
    if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >&2; then
        find_system && exit 0
    fi
fi
echo "Chromium is not installed: installing Playwright's own" >&2
python -m playwright install chromium >&2
find_playwright
