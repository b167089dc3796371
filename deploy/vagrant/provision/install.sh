#!/bin/sh
# Installs the packages of a role from a folder: install.sh manager|worker FOLDER
#
# May be run again: packages that are installed as they lie there are passed over, others replace
# what is installed.
set -eu

usage() {
    echo "usage: install.sh manager|worker FOLDER" >&2
    exit 2
}

[ $# -eq 2 ] || usage
role=$1
folder=$2
case $role in
manager | worker) ;;
*) usage ;;
esac

if [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: packages are installed by root: run it with sudo" >&2
    exit 1
fi

# What was installed, to tell builds of one version apart.
seen=/var/lib/cluster-provision
install -d -m 0755 "$seen"

set --
for package in "cluster-$role" clusterctl; do
    deb=
    for candidate in "$folder/${package}"_*.deb; do
        [ -e "$candidate" ] || continue
        if [ -n "$deb" ]; then
            echo "install.sh: $folder has more than one $package: leave one there" >&2
            exit 1
        fi
        deb=$candidate
    done
    if [ -z "$deb" ]; then
        echo "install.sh: $folder has no $package: build the packages with \`cargo xtask deb\`" >&2
        exit 1
    fi
    installed=$(dpkg-query --show --showformat '${Status} ${Version}' "$package" 2>/dev/null) || installed=
    if [ "$installed" = "install ok installed $(dpkg-deb --field "$deb" Version)" ] &&
        sha256sum "$deb" | cut -d ' ' -f 1 | cmp -s - "$seen/$package.sha256"; then
        echo "$package is installed already"
    else
        set -- "$@" "$deb"
    fi
done

if [ $# -eq 0 ]; then
    exit 0
fi
# One of the same version that was built anew counts as a change, one of an older version as well.
# Lists are fetched only if something the packages need is not there.
export DEBIAN_FRONTEND=noninteractive
quiet_install() {
    apt-get install --yes --quiet --quiet --no-install-recommends --reinstall --allow-downgrades \
        -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold "$@"
}
quiet_install "$@" || {
    apt-get update --quiet --quiet
    quiet_install "$@"
}
for deb in "$@"; do
    package=$(dpkg-deb --field "$deb" Package)
    sha256sum "$deb" | cut -d ' ' -f 1 >"$seen/$package.sha256"
    echo "$package $(dpkg-deb --field "$deb" Version) is installed"
done
