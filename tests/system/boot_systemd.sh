#!/usr/bin/env bash
# Boot systemd over this machine's own files, in namespaces of its own: what it writes goes to memory and is lost.
#   boot_systemd.sh MOUNTS KEPT: an empty folder for the mounts; a folder whose units/ and state/ outlive a reboot.
# There is an ordinary user, lab, whom KEPT/state belongs to. The network is this machine's.
set -euo pipefail
mounts=$1 kept=$2
mount --make-rprivate /
mount -t tmpfs tmpfs "$mounts"
mkdir "$mounts"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$mounts/upper,workdir=$mounts/work" "$mounts/root"
cd "$mounts/root"
rm -rf etc/systemd/system etc/systemd/user var/log/journal
chmod go+x root # where Python may be installed
: >etc/fstab
mount -t proc proc proc
mount --bind proc/sys proc/sys && mount -o remount,ro,bind proc/sys
mount --rbind /dev dev
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p etc/systemd/system ".$kept/state"
mount --bind "$kept/units" etc/systemd/system
mount --bind "$kept/state" ".$kept/state"
chroot . useradd --create-home --uid 4321 --shell /bin/bash lab
chown 4321 ".$kept/state"
exec env -i container=lingbi-test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --system --unit=multi-user.target --log-target=null --show-status=no
