#!/bin/sh
# Behaves as the image of PostgreSQL that people know: makes the database that the environment names, then serves it.
set -eu
export PGDATA="${PGDATA:-/var/lib/postgresql/data}"
user="${POSTGRES_USER:-postgres}"
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    install -d -o postgres -g postgres -m 700 "$PGDATA"
    install -d -o postgres -g postgres /var/run/postgresql
    password=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
    chown postgres "$password"
    as_postgres initdb --username="$user" --pwfile="$password" --auth-host=scram-sha-256 --auth-local=trust
    rm "$password"
    as_postgres pg_ctl -w -o "-c listen_addresses=''" start
    if [ "${POSTGRES_DB:-$user}" != postgres ]; then
        as_postgres createdb --username="$user" "${POSTGRES_DB:-$user}"
    fi
    as_postgres pg_ctl -w -m fast stop
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi
exec setpriv --reuid postgres --regid postgres --init-groups postgres -c "listen_addresses=*"
