#!/bin/sh
# Before the kernel is installed: its initial RAM disk holds these drivers and no others.
# Arguments: the new root, and the public key (not used here).
set -eu
root=$1

mkdir -p "$root/etc/initramfs-tools/conf.d"
cat >"$root/etc/initramfs-tools/conf.d/vm-lab" <<'EOF'
MODULES=list
BUSYBOX=n
COMPRESS=zstd
COMPRESSLEVEL=3
FSTYPE=ext4
RESUME=none
EOF
cat >"$root/etc/initramfs-tools/modules" <<'EOF'
virtio_pci
virtio_blk
ext4
crc32c_generic
EOF
