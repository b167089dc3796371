#!/bin/sh
# Makes this machine a manager or worker:
#   join.sh manager ADDRESS                          begins a new cluster
#   join.sh manager|worker ADDRESS TOKEN MANAGER...  joins one; TOKEN is a file, MANAGER is HOST:PORT
#
# May be run again: the packages' own commands find what is there already and go on. The file with
# the token is removed.
set -eu

usage() {
    echo "usage: join.sh manager ADDRESS | join.sh manager|worker ADDRESS TOKENFILE HOST:PORT..." >&2
    exit 2
}

[ $# -ge 2 ] || usage
role=$1
address=$2
shift 2
case $role in
manager | worker) ;;
*) usage ;;
esac

if [ $# -eq 0 ]; then
    [ "$role" = manager ] || usage
    # Without the commands for further machines: they have the tokens in them.
    exec cluster-manager init --quiet --advertise "$address"
fi
[ $# -ge 2 ] || usage
token=$1
shift
# Whatever happens, the token does not stay.
trap 'rm -f "$token"' EXIT
"cluster-$role" join --advertise "$address" --token-file "$token" "$@"
