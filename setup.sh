#!/usr/bin/env bash
# Finds what building, testing and the demo need besides Rust, and installs what is
# missing when it may. Services that Debian would start at once are not started: the
# tests run their own, on private addresses.
set -euo pipefail

# program-or-file=package
needed=(
	etcd=etcd-server
	etcdctl=etcd-client
	nginx=nginx
	apache2=apache2
	haproxy=haproxy
	wrk=wrk
	curl=curl
	cc=build-essential
	protoc=protobuf-compiler
	/usr/include/google/protobuf/empty.proto=libprotobuf-dev
	systemd-analyze=systemd
)

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

present() {
	case $1 in
	/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing() {
	local entry
	for entry in "${needed[@]}"; do
		present "${entry%%=*}" || echo "${entry#*=}"
	done
}

if ! command -v "${CARGO:-cargo}" >/dev/null; then
	echo "setup: cargo was not found. Install Rust 1.95 or newer (rustup) and try again." >&2
	exit 1
fi

mapfile -t packages < <(missing)
[ ${#packages[@]} -gt 0 ] || exit 0

echo "setup: missing: ${packages[*]}"
command=(apt-get install --yes --no-install-recommends "${packages[@]}")
root=()
if [ "$(id -u)" != 0 ]; then
	root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; }; then
	echo "setup: cannot install packages here (apt-get as root is needed). On Debian this does it:" >&2
	echo "  sudo ${command[*]}" >&2
	exit 1
fi

# 101 is "not allowed by policy": what gets installed is not started.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
	"${root[@]}" chmod +x $policy
	trap '"${root[@]}" rm -f $policy' EXIT
fi
"${root[@]}" apt-get update --quiet
"${root[@]}" env DEBIAN_FRONTEND=noninteractive "${command[@]}"

mapfile -t packages < <(missing)
if [ ${#packages[@]} -gt 0 ]; then
	echo "setup: still missing after the installation: ${packages[*]}" >&2
	exit 1
fi
