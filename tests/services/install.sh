#!/usr/bin/env bash
# Installs the servers that the tests start (PostgreSQL, Redis, Prometheus, Alertmanager) where they are missing; does nothing where
# they are there.
# It installs programs only: no test uses a server that somebody else started.
set -euo pipefail

packages=()
shopt -s nullglob
servers=(/usr/lib/postgresql/*/bin/postgres)
if ! command -v postgres >/dev/null && [ ${#servers[@]} -eq 0 ]; then
    packages+=(postgresql)
fi
command -v redis-server >/dev/null || packages+=(redis-server)
command -v prometheus >/dev/null && command -v promtool >/dev/null || packages+=(prometheus)
command -v amtool >/dev/null || packages+=(prometheus-alertmanager)
[ ${#packages[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "plumbline: servers for the tests are missing: ${packages[*]}; expected their programs on PATH; got none;" \
        "next: install them (Debian: apt-get install ${packages[*]}) and run make test again" >&2
    exit 1
fi
echo "installing servers for the tests: ${packages[*]}"
# RUNLEVEL=1 keeps the packages from starting services of their own.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
wait_for_lock=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
apt-get "${wait_for_lock[@]}" update -qq
apt-get "${wait_for_lock[@]}" install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
