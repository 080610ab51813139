#!/bin/sh
# First program of the guest: root over 9p (read-only, made writable by an overlay in memory), then init.sh.
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
for module in /mods/"$(uname -r)"/*; do [ ! -e "$module" ] || insmod "$module" || echo "insmod $module failed"; done
o=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o $o,ro,cache=loose rootfs /lower || { echo "9p root failed"; poweroff -f; }
mount -t tmpfs t /upper
mkdir /upper/u /upper/w
mount -t overlay -o lowerdir=/lower,upperdir=/upper/u,workdir=/upper/w o /root
mount -o move /proc /root/proc
mount -o move /sys /root/sys
mount -o move /dev /root/dev
mount -t 9p -o $o control /root/hwlab
exec switch_root /root /bin/bash /hwlab/init.sh
