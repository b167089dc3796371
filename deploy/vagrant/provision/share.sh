#!/bin/sh
# On the first manager, prints what others need; to be kept secret:
#   share.sh token manager|worker   the join token
#   share.sh context                the context file for clusterctl
set -eu

context=/var/lib/cluster-manager/admin.json
case ${1-}:${2-} in
token:manager | token:worker)
    exec clusterctl --context-file "$context" cluster token --quiet --role "$2"
    ;;
context:)
    exec cat "$context"
    ;;
*)
    echo "usage: share.sh token manager|worker | share.sh context" >&2
    exit 2
    ;;
esac
