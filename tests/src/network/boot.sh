#!/bin/sh
# boot.sh DISK NAME ADDRESS PORT NETWORK CGROUP [FILE=PATH...]
# Boots the machine's own systemd as PID 1 of a throw-away container. Its disk is an overlay
# over / that lies in DISK and outlives a reboot; each FILE (a program on trial) is bound to
# its PATH. eth0 gets ADDRESS, and its other end, PORT, goes on the bridge in the network
# namespace of process NETWORK. The number of PID 1 as we see it is written to DISK/leader.
set -eu
disk=$1 name=$2 address=$3 port=$4 network=$5 cgroup=$6

if [ "${INSIDE:-}" != yes ]; then
	mkdir -p "$cgroup" "$disk"
	echo $$ >"$cgroup/cgroup.procs"
	export INSIDE=yes
	exec unshare --fork --kill-child=KILL --pid --mount --uts --ipc --cgroup --net \
		sh "$0" "$@"
fi

# /proc is still that of outside, so this is our number there.
read -r leader _ </proc/self/stat
mount --make-rprivate /

ip link add eth0 type veth peer name "$port" netns "/proc/$network/ns/net"
nsenter "--net=/proc/$network/ns/net" ip link set "$port" master br0 up
ip address add "$address/24" dev eth0
ip link set lo up
ip link set eth0 up

shift 6
root=$disk/root
first=no
[ -d "$root" ] || first=yes
mkdir -p "$disk/upper" "$disk/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$root"

mount -t proc proc "$root/proc"
hostname "$name"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
	: >"$root/dev/$node"
	mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"

# A freshly installed machine: nothing of this one's services, mounts, journal or identity.
if [ $first = yes ]; then
	rm -rf "$root/etc/systemd/system" "$root/var/log/journal" "$root"/etc/rc?.d
	mkdir "$root/etc/systemd/system"
	for unit in systemd-logind.service getty.target systemd-udevd.service e2scrub_reap.service; do
		ln -s /dev/null "$root/etc/systemd/system/$unit"
	done
	echo "$name" >"$root/etc/hostname"
	: >"$root/etc/fstab"
	# It forbids to start what a package installs.
	rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/machine-id"
	# Left to itself, systemd takes that of the hardware: the same for all.
	echo "$name $address" | md5sum | cut -c 1-32 >"$root/etc/machine-id"
fi

for program; do
	target=$root${program#*=}
	[ -e "$target" ] || : >"$target"
	mount --bind "${program%%=*}" "$target"
done

echo "$leader" >"$disk/leader"
cd "$root"
mkdir -p mnt/old
pivot_root . mnt/old
umount -l /mnt/old
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --log-target=journal --unit=multi-user.target
