//! The schema and how a database gets there. A released migration is never changed: a new one is appended.

use crate::{Error, Result, doing};
use rusqlite::Connection;

/// Each entry takes the schema from its index to the next.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE containers (
        id    TEXT PRIMARY KEY NOT NULL,
        name  TEXT UNIQUE NOT NULL,
        spec  TEXT NOT NULL,
        state TEXT NOT NULL
    ) STRICT;
    CREATE TABLE images   (key TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE TABLE refs     (key TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE TABLE layers   (key TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE TABLE networks (key TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
    CREATE TABLE volumes  (key TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
",
    "
    CREATE TABLE build_cache (key TEXT PRIMARY KEY NOT NULL, record TEXT NOT NULL) STRICT;
",
];

/// How many KiB of pages the connection may cache: the database is small, and the engine is to stay small.
const CACHE_KIB: i32 = 256;

/// Sets the connection up and brings its database to the newest schema.
pub(crate) fn migrate(connection: &mut Connection) -> Result<()> {
    let settings = [
        ("journal_mode", "WAL"),
        ("synchronous", "NORMAL"),
        ("foreign_keys", "ON"),
    ];
    for (name, value) in settings {
        connection
            .pragma_update(None, name, value)
            .map_err(doing("set up the database"))?;
    }
    connection
        .pragma_update(None, "cache_size", -CACHE_KIB)
        .map_err(doing("set up the database"))?;
    let transaction = connection
        .transaction()
        .map_err(doing("begin the migration"))?;
    let version = transaction.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
    let found = version.map_err(doing("read the schema version"))?;
    let known = u32::try_from(MIGRATIONS.len()).expect("a handful of migrations");
    let missing = MIGRATIONS
        .get(found as usize..)
        .ok_or(Error::Newer { found, known })?;
    for migration in missing {
        transaction
            .execute_batch(migration)
            .map_err(doing("migrate the database"))?;
    }
    transaction
        .pragma_update(None, "user_version", known)
        .map_err(doing("set the schema version"))?;
    transaction.commit().map_err(doing("commit the migration"))
}
