#!/bin/bash
# Makes this process's mount namespace a machine's and becomes systemd in it. What is seen of the host: /usr, only to be read, with
# $1/usr laid over it; the programs of $2; a few devices. Its root has no capability of $4. /etc is $1/etc, everything else is empty and in RAM.
set -euo pipefail
tree="$1" programs="$2" name="$3" never="$4"
mount --make-rprivate /
root="$tree/root"
mkdir -p "$root"
mount -t tmpfs -o mode=755 none "$root"
cd "$root"
mkdir -p usr etc var run tmp proc sys dev root
for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$folder"; done
mkdir -p "$tree/usr/bin"
for program in sun sun-check popularity-api cache-daemon geo; do : >"$tree/usr/bin/$program"; done
mount -t overlay -o "lowerdir=$tree/usr:/usr" none usr
for program in sun sun-check popularity-api cache-daemon geo; do mount --bind "$programs/$program" "usr/bin/$program"; done
mount -t tmpfs -o mode=755 none run
mount -t tmpfs -o mode=1777 none tmp

# Of the kernel's settings, those of its own network are its own.
mount -t proc proc run
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind run/sys/net proc/sys/net
umount run
# What is of the whole kernel is only to be read.
for place in bus fs irq acpi scsi sysrq-trigger mtrr; do
    [ -e "proc/$place" ] || continue
    mount --bind "proc/$place" "proc/$place"
    mount -o remount,bind,ro "proc/$place"
done
if [ -d usr/lib/modules ]; then mount -t tmpfs -o ro none usr/lib/modules; fi
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
for device in null zero full random urandom tty; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 none dev/shm

mkdir -p "$tree/etc"
mount --bind "$tree/etc" etc
cp /etc/nsswitch.conf etc/
cp -a /etc/bird etc/
printf 'root:x:0:0:root:/root:/bin/sh\n' >etc/passwd
printf 'root:x:0:\n' >etc/group
: >etc/shadow
grep -h '^bird:' /etc/passwd >>etc/passwd || true
grep -h '^bird:' /etc/group >>etc/group || true
printf '%s\n' "$name" >etc/hostname
# A machine that has none boots for the first time, and enables everything.
printf '%s\n' 0123456789abcdef0123456789abcdef >etc/machine-id
# What belongs to the whole kernel is not this machine's.
mkdir -p etc/systemd/system
for unit in systemd-journald-audit.socket systemd-remount-fs.service systemd-udevd.service systemd-modules-load.service \
    dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service systemd-random-seed.service \
    systemd-sysctl.service getty.target console-getty.service modprobe@.service systemd-logind.service; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
# Nor is anything started because a package of the host's wants it: what a test enables is, and what keeps the journal and makes
# the users and folders.
for wanted in usr/lib/systemd/system/*.{wants,requires}/*; do
    unit="${wanted##*/}"
    case "$unit" in
    '*' | *.target | systemd-journald* | systemd-journal-flush.service | systemd-sysusers.service | systemd-tmpfiles-setup.service) ;;
    *) [ -e "$tree/usr/lib/systemd/system/$unit" ] || ln -sf /dev/null "etc/systemd/system/$unit" ;;
    esac
done
mkdir -p etc/systemd/system-generators
for generator in usr/lib/systemd/system-generators/*; do
    ln -sf /dev/null "etc/systemd/system-generators/${generator##*/}"
done

mkdir host
pivot_root . host
umount -l /host
rmdir /host
# Who is root here is root of the host. What systemd can do without, nobody can do here.
exec env -i container=sun-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set "$never" --inh-caps "$never" \
    /usr/lib/systemd/systemd --unit=basic.target --log-target=journal
