#!/bin/bash
# Second program of the guest: mounts what Guest.run offers, runs the job, leaves its exit status, powers off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
export PYTHONPATH=/opt/tree:/opt/site PYTHONDONTWRITEBYTECODE=1
mount -t tmpfs t /run
mount -t tmpfs t /tmp
mkdir -p /run/netns /run/openvswitch /dev/pts /dev/shm
mount -t devpts d /dev/pts
mount -t tmpfs t /dev/shm
mount -t debugfs d /sys/kernel/debug
o=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o $o share /share
mount -t 9p -o $o,ro,cache=loose modules /lib/modules
mount -t 9p -o $o,ro,cache=loose site /opt/site
mount -t 9p -o $o,ro,cache=loose tree /opt/tree/mecexporter
hostname guest
ip link set lo up
printf 'up after %s s, kernel %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$(uname -r)" >/hwlab/started
stty -F /dev/ttyS1 raw
cd /share || exit
bash /hwlab/job </dev/null >/dev/ttyS1 2>&1
echo $? >/hwlab/status
sync
stty -F /dev/ttyS1 raw # waits until the last byte is out
echo o >/proc/sysrq-trigger
sleep 30
