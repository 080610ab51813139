#!/bin/bash
# What becomes of VFs, seen by the kernel: made, given away, taken back, removed; the PF unplugged. Needs igb.
# shellcheck disable=SC2317 # check calls functions by name
# shellcheck source=tests/hwlab/guest/lib.sh
. /hwlab/lib.sh
equal() {
    echo "$1, wanted $2"
    [ "$1" = "$2" ]
}
netdevs() { find "$PF_DIR"/virtfn*/net -mindepth 1 -maxdepth 1 2>/dev/null | wc -l; }
shows() { # NAME: all that tells of this state
    record "$1.manifest" python3 /hwlab/manifest.py pack
    record "$1.ip-link.json" ip -d -j link
    record "$1.links.bin" python3 /hwlab/record.py links
}
pf

say "no VFs"
check "7 possible, none there" equal "$(cat "$PF_DIR/sriov_totalvfs" "$PF_DIR/sriov_numvfs" | xargs)" "7 0"
shows igb-no-vfs

say "4 VFs"
vfs 4
check "each with a netdev" equal "$(netdevs)" 4
check "each with an IOMMU group of its own" equal "$(for n in 0 1 2 3; do vf_group $n; done | sort -u | wc -l)" 4
check "addresses follow the stride, not +1" equal "$(vf 1)" 0000:01:10.2
for n in 0 1 2 3; do ip link set pf0v$n address 52:54:00:bb:00:0$n; done # random otherwise
ip link set pf0 vf 0 mac 52:54:00:bb:00:10
ip link set pf0 vf 1 vlan 100 qos 3
ip link set pf0 vf 1 spoofchk off
ip link set pf0 vf 2 trust on
check "the PF tells VF 0's MAC" equal "$(vf_info 0 address)" 52:54:00:bb:00:10
check "the PF tells VF 1's VLAN" equal "$(vf_info 1 'vlan_list[0].vlan')" 100
check "the PF tells of VF 2's trust" equal "$(vf_info 2 trust)" true

say "VF 0 bound to vfio-pci, nobody has it open"
vf_bind 0 vfio-pci
check "bound" equal "$(vf_driver 0)" vfio-pci
check "its netdev is gone" test ! -e "$PF_DIR/virtfn0/net"
check "its group's device is there" test -c "/dev/vfio/$(vf_group 0)"
check "the PF still tells its MAC" equal "$(vf_info 0 address)" 52:54:00:bb:00:10
shows igb-vf-bound

say "a virtual machine has it"
hold 0
check "/proc tells who" equal "$(readlink "/proc/$HELD_BY/fd"/* | grep -c "^/dev/vfio/$(vf_group 0)$")" 1
check "a second one is refused" eval "! python3 /hwlab/hold.py $(vf_group 0) $(vf 0) -- /bin/true true"
shows igb-vf-held

say "its MAC and VLAN are changed on the PF"
ip link set pf0 vf 0 mac 52:54:00:bb:00:20
ip link set pf0 vf 0 vlan 200
check "the PF tells the new MAC" equal "$(vf_info 0 address)" 52:54:00:bb:00:20
check "and the new VLAN" equal "$(vf_info 0 'vlan_list[0].vlan')" 200
shows igb-vf-changed

say "the virtual machine has ended, the VF is bound to nothing, then to the host's driver"
release
vf_bind 0 none
check "no driver" test ! -e "$PF_DIR/virtfn0/driver"
shows igb-vf-unbound
vf_bind 0 igbvf
check "its netdev is back" equal "$(netdevs)" 4
shows igb-vf-back

say "VFs removed under a virtual machine"
address=$(vf 0)
vf_bind 0 vfio-pci
hold 0
waits_in() { grep -q "$2" "/proc/$1/stack"; }
(
    vfs 0
    echo ended >/tmp/removed
) &
remover=$!
check "the kernel waits for it" wait_for 10 waits_in $remover vfio_unregister_group_dev
# shellcheck disable=SC2002 # a process of its own is the point
cat "$PF_DIR/sriov_numvfs" >/tmp/numvfs &
reader=$!
check "who reads sriov_numvfs meanwhile waits too" wait_for 10 waits_in $reader sriov_numvfs_show
echo "      left of the VFs: $(cd "$PF_DIR" && echo virtfn*)"
check "the VF's address is still there" test -e "/sys/bus/pci/devices/$address"
check "who reads other attributes does not" timeout 5 cat "$PF_DIR/sriov_totalvfs" "$PF_DIR/net/pf0/address"
check "nor who asks the PF's netlink" timeout 5 ip -d link show pf0
release
check "both go on when it has ended" wait_for 10 test -e /tmp/removed -a -s /tmp/numvfs
check "none is left" equal "$(cat "$PF_DIR/sriov_numvfs")" 0

say "the PF unplugged and found again"
vfs 2
unplug
check "gone from sysfs" test ! -e "$PF_DIR"
shows igb-unplugged
replug
check "back, without VFs" equal "$(cat "$PF_DIR/sriov_numvfs")" 0
finish
