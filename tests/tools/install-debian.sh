#!/bin/sh
# Installs the Debian or Ubuntu packages that the tests run: real OVS, OVN, OpenStack, Prometheus, Alertmanager and a
# browser. Does nothing when all of them are there. Needs root otherwise. No package starts a daemon. PYTHON: as in the
# Makefile; TESTS=no leaves out what only the tests need.
set -eu

missing=
need() { # PACKAGE PROBE...: the package is missing if the probe fails
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

PATH=$PATH:/usr/sbin:/sbin
PYTHON=${PYTHON:-python3}
need make command -v make
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
need git command -v git
need procps command -v ps
need iproute2 command -v ip
need iputils-ping command -v ping
need ethtool command -v ethtool
need strace command -v strace
need shellcheck command -v shellcheck
need openvswitch-switch command -v ovs-vswitchd
need ovn-common command -v ovn-nbctl
need ovn-central command -v ovn-northd
need ovn-host command -v ovn-controller
need prometheus command -v prometheus
need prometheus-alertmanager command -v prometheus-alertmanager
if [ "$PYTHON" = python3 ]; then
    need python3-venv python3 -c 'import ensurepip, venv'
else
    "$PYTHON" -c 'import ensurepip, venv' || { echo "$PYTHON cannot make virtual environments" >&2; exit 1; }
fi
browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
atomic() { ldconfig -p | grep -q 'libatomic\.so\.1 '; } # of Playwright's own Node.js
debian_python() { test -d "/usr/lib/python3/dist-packages/$1"; } # without the programs, whose packages want to be set up
if [ "${TESTS:-yes}" != no ]; then
    need chromium browser
    need libatomic1 atomic
    need mariadb-server-core command -v mariadbd
    need mariadb-client-core command -v mariadb
    need python3-neutron debian_python neutron
    need python3-nova debian_python nova
    need python3-placement debian_python placement
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "missing Debian packages:$missing (run this as root, or: apt-get install --no-install-recommends$missing)" >&2
    exit 1
fi

# invoke-rc.d and deb-systemd-invoke ask this file whether a daemon may start; 101 is no.
policy=/usr/sbin/policy-rc.d
kept=
restore() {
    rm -f "$policy"
    if [ -n "$kept" ]; then mv "$kept" "$policy"; fi
}
if [ -e "$policy" ]; then
    kept=$(mktemp "$policy.XXXXXX")
    mv "$policy" "$kept"
fi
trap restore EXIT
trap 'exit 1' HUP INT TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
echo "installing:$missing" >&2
apt-get -o DPkg::Lock::Timeout=120 -q update
case "$missing" in
    *" chromium"*)
        apt-cache show chromium >/dev/null 2>&1 || {
            echo "no package chromium here (Ubuntu has it as a snap only): install Chromium or Google Chrome first" >&2
            exit 1
        }
        ;;
esac
# shellcheck disable=SC2086 # a list of words
apt-get -o DPkg::Lock::Timeout=300 -q -y install --no-install-recommends $missing
