#!/bin/bash
# A netdevsim in switchdev mode: representors and devlink, as a SmartNIC shows them; back in legacy mode they are gone.
# shellcheck disable=SC2016,SC2317 # check evaluates its words when it is called
# shellcheck source=tests/hwlab/guest/lib.sh
. /hwlab/lib.sh
representors() { cat /sys/bus/netdevsim/devices/netdevsim3/net/*/phys_port_name | grep -c pf0vf; }
DEVICE=netdevsim/netdevsim3
mode_as_asked() {
    python3 - <<'P'
from mecexporter.sources.links import _devlink, _eswitch_mode
from mecexporter.sources.wire.netlink import NETLINK_GENERIC, Netlink
with Netlink(NETLINK_GENERIC) as genl:
    print(_eswitch_mode(genl, _devlink(genl), "netdevsim3", "netdevsim"), _eswitch_mode(genl, _devlink(genl), "none"))
P
}

say "switchdev mode, 3 VFs"
switchdev 3 p3 3
check "3 representors" eval '[ "$(representors)" = 3 ]'
check "one switch" eval '[ "$(cat /sys/bus/netdevsim/devices/netdevsim3/net/*/phys_switch_id | sort -u | wc -l)" = 1 ]'
devlink dev eswitch show $DEVICE
check "the exporter's own question" eval '[ "$(mode_as_asked)" = "switchdev None" ]'
record netdevsim-switchdev.manifest python3 /hwlab/manifest.py pack
record netdevsim-switchdev.links.bin python3 /hwlab/record.py links
record netdevsim-switchdev.ip-link.json ip -d -j link
record netdevsim-switchdev.devlink.txt eval "devlink dev; devlink dev info $DEVICE; devlink dev eswitch show $DEVICE; devlink port show; devlink -j -p port show; devlink health show"

say "legacy mode"
devlink dev eswitch set $DEVICE mode legacy
check "mode" eval "devlink dev eswitch show $DEVICE | grep -q 'mode legacy'"
check "the exporter's own question" eval '[ "$(mode_as_asked)" = "legacy None" ]'
check "no representors" eval '! representors'
record netdevsim-legacy.manifest python3 /hwlab/manifest.py pack
finish
