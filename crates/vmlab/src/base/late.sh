#!/bin/sh
# After all packages are installed: a machine that lets the lab in and starts fast.
# Arguments: the new root, and the public key that may log in.
#
# Name, address and machine id come with the kernel's command line: systemd reads
# systemd.hostname=, systemd.machine_id= and ip= (systemd-network-generator).
set -eu
root=$1
public_key=$2

# Each machine makes a host key of its own at its first start; the other kinds take long to make.
rm -f "$root"/etc/ssh/ssh_host_*
cat >"$root/etc/ssh/sshd_config.d/vm-lab.conf" <<'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
UseDNS no
EOF
mkdir -p "$root/etc/systemd/system/ssh.service.d"
cat >"$root/etc/systemd/system/ssh.service.d/vm-lab.conf" <<'EOF'
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'test -s /etc/ssh/ssh_host_ed25519_key || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key'
EOF
install -d -m 0700 "$root/root/.ssh"
install -m 0600 "$public_key" "$root/root/.ssh/authorized_keys"

: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/etc/hostname" "$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"
echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
# The journal outlives a power cut.
mkdir -p "$root/var/log/journal"

chroot "$root" systemctl --quiet enable systemd-networkd.service ssh.service
chroot "$root" systemctl --quiet set-default multi-user.target
# Nobody looks at these machines' screens, and their disks are thrown away.
chroot "$root" systemctl --quiet mask getty@tty1.service serial-getty@ttyS0.service \
    getty-static.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-update-utmp.service \
    systemd-pcrphase.service systemd-pcrphase-sysinit.service modprobe@drm.service \
    modprobe@efi_pstore.service modprobe@fuse.service
