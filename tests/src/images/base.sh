#!/bin/sh
# base.sh FOLDER: writes a Debian as a tar, made like the image that the registry of Docker
# has as debian:bookworm-slim. Run it in a mount namespace of its own.
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
debootstrap --variant=minbase bookworm "$1" >&2
cd "$1"
rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/info var/cache/apt/*.bin var/lib/apt/lists/*
echo force-unsafe-io >etc/dpkg/dpkg.cfg.d/docker-apt-speedup
cat >etc/apt/apt.conf.d/docker-clean <<'END'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
END
tar -c .
