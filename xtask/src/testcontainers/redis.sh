#!/bin/sh
# Behaves as the image of Redis that people know: serves everybody, and takes the server's options, with or without its name.
[ "${1-}" != redis-server ] || shift
exec setpriv --reuid redis --regid redis --init-groups redis-server --protected-mode no --dir /tmp "$@"
