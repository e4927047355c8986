//! The durable records of the engine: one SQLite database, one schema, one migration path.
//!
//! A record is a row with its keys as columns, and a JSON document that its owner writes and reads; this crate knows
//! what is unique and what belongs together, not what a container is. Every public function is one transaction.
//!
//! Durability: write-ahead log with `synchronous=NORMAL`. After kill -9 nothing acknowledged is lost; after power loss
//! the database is consistent, and the last moments may be missing, as with the files they describe.

mod schema;

use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The database.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another record has the key or the name.
    #[error("{what} is taken already")]
    Taken {
        /// The kind of record and the key.
        what: String,
    },
    /// The database was written by a newer release.
    #[error(
        "the database has schema {found}, this release knows up to {known}: use the newer release"
    )]
    Newer {
        /// The database's schema version.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// SQLite failed.
    #[error("{doing}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// SQLite's own words.
        #[source]
        source: rusqlite::Error,
    },
}

/// The result of an access to the records.
pub type Result<T> = std::result::Result<T, Error>;

/// A container's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRow {
    /// The container's id.
    pub id: String,
    /// Its name, unique.
    pub name: String,
    /// What it is: never changes, JSON.
    pub spec: String,
    /// How it is: JSON.
    pub state: String,
}

/// The kinds of records that are a key and a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Images by id.
    Image,
    /// References to images by normalised name.
    Reference,
    /// Unpacked layers by diff ID.
    Layer,
    /// Networks by id.
    Network,
    /// Volumes by name.
    Volume,
    /// Results of builds by key.
    BuildCache,
}

impl Kind {
    fn table(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Reference => "refs",
            Self::Layer => "layers",
            Self::Network => "networks",
            Self::Volume => "volumes",
            Self::BuildCache => "build_cache",
        }
    }
}

/// A change of a keyed record, for [`Store::apply`].
#[derive(Debug, Clone)]
pub enum Change {
    /// Write, whether it is there or not.
    Put(Kind, String, String),
    /// Remove, if it is there.
    Remove(Kind, String),
}

impl Store {
    /// Opens the database at `path`, makes it or migrates it when needed.
    ///
    /// # Errors
    /// A file that is no database of ours, or one of a newer release.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).map_err(doing("open the database"))?;
        Self::prepare(connection)
    }

    /// A database that lives as long as the value: for tests.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn in_memory() -> Result<Self> {
        Self::prepare(Connection::open_in_memory().map_err(doing("open the database"))?)
    }

    fn prepare(mut connection: Connection) -> Result<Self> {
        schema::migrate(&mut connection)?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    /// SQLite rolls an unfinished transaction back, so a panic elsewhere leaves nothing half-written behind the lock.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// All containers, the oldest first.
    ///
    /// # Errors
    /// As SQLite.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("SELECT id, name, spec, state FROM containers ORDER BY rowid")
            .map_err(doing("list containers"))?;
        let rows = statement.query_map([], |row| {
            Ok(ContainerRow {
                id: row.get(0)?,
                name: row.get(1)?,
                spec: row.get(2)?,
                state: row.get(3)?,
            })
        });
        rows.and_then(Iterator::collect)
            .map_err(doing("list containers"))
    }

    /// Adds a container and reserves its name.
    ///
    /// # Errors
    /// [`Error::Taken`] when the name or the id is.
    pub fn insert_container(&self, row: &ContainerRow) -> Result<()> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached(
                "INSERT INTO containers (id, name, spec, state) VALUES (?1, ?2, ?3, ?4)",
            )
            .map_err(doing("insert a container"))?;
        let inserted = statement.execute(params![row.id, row.name, row.spec, row.state]);
        inserted
            .map(drop)
            .map_err(|error| taken(error, "insert a container", &row.name))
    }

    /// Replaces a container's state document.
    ///
    /// # Errors
    /// As SQLite. A container that is gone is no error: its removal has won.
    pub fn set_container_state(&self, id: &str, state: &str) -> Result<()> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("UPDATE containers SET state = ?2 WHERE id = ?1")
            .map_err(doing("update a container's state"))?;
        statement
            .execute([id, state])
            .map(drop)
            .map_err(doing("update a container's state"))
    }

    /// Replaces a container's specification document.
    ///
    /// # Errors
    /// As SQLite.
    pub fn set_container_spec(&self, id: &str, spec: &str) -> Result<()> {
        let sql = "UPDATE containers SET spec = ?2 WHERE id = ?1";
        let done = self.lock().execute(sql, [id, spec]);
        done.map(drop)
            .map_err(doing("update a container's specification"))
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`Error::Taken`] when the name is.
    pub fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        let sql = "UPDATE containers SET name = ?2 WHERE id = ?1";
        let renamed = self.lock().execute(sql, [id, name]);
        renamed
            .map(drop)
            .map_err(|error| taken(error, "rename a container", name))
    }

    /// Removes a container's row, if it is there.
    ///
    /// # Errors
    /// As SQLite.
    pub fn delete_container(&self, id: &str) -> Result<()> {
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached("DELETE FROM containers WHERE id = ?1")
            .map_err(doing("delete a container"))?;
        statement
            .execute([id])
            .map(drop)
            .map_err(doing("delete a container"))
    }

    /// The document of a keyed record.
    ///
    /// # Errors
    /// As SQLite.
    pub fn get(&self, kind: Kind, key: &str) -> Result<Option<String>> {
        let sql = format!("SELECT record FROM {} WHERE key = ?1", kind.table());
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached(&sql)
            .map_err(doing("read a record"))?;
        statement
            .query_row([key], |row| row.get(0))
            .optional()
            .map_err(doing("read a record"))
    }

    /// All records of a kind as key and document, ordered by key.
    ///
    /// # Errors
    /// As SQLite.
    pub fn list(&self, kind: Kind) -> Result<Vec<(String, String)>> {
        let sql = format!("SELECT key, record FROM {} ORDER BY key", kind.table());
        let connection = self.lock();
        let mut statement = connection
            .prepare_cached(&sql)
            .map_err(doing("list records"))?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.and_then(Iterator::collect)
            .map_err(doing("list records"))
    }

    /// Carries out changes, all or none.
    ///
    /// # Errors
    /// As SQLite.
    pub fn apply(&self, changes: &[Change]) -> Result<()> {
        let mut connection = self.lock();
        let transaction = connection
            .transaction()
            .map_err(doing("begin a transaction"))?;
        for change in changes {
            let done = match change {
                Change::Put(kind, key, record) => {
                    let sql = format!("INSERT OR REPLACE INTO {} VALUES (?1, ?2)", kind.table());
                    transaction.execute(&sql, [key, record])
                }
                Change::Remove(kind, key) => transaction.execute(
                    &format!("DELETE FROM {} WHERE key = ?1", kind.table()),
                    [key],
                ),
            };
            done.map_err(doing("change records"))?;
        }
        transaction.commit().map_err(doing("commit a transaction"))
    }

    /// Adds a keyed record that must be new.
    ///
    /// # Errors
    /// [`Error::Taken`] when the key is.
    pub fn insert(&self, kind: Kind, key: &str, record: &str) -> Result<()> {
        let sql = format!("INSERT INTO {} VALUES (?1, ?2)", kind.table());
        let inserted = self.lock().execute(&sql, [key, record]);
        inserted
            .map(drop)
            .map_err(|error| taken(error, "insert a record", key))
    }
}

fn doing(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::Sqlite { doing, source }
}

fn taken(source: rusqlite::Error, doing: &'static str, key: &str) -> Error {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => Error::Taken {
            what: format!("{key:?}"),
        },
        _ => Error::Sqlite { doing, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, name: &str) -> ContainerRow {
        ContainerRow {
            id: id.into(),
            name: name.into(),
            spec: "{}".into(),
            state: "{}".into(),
        }
    }

    #[test]
    fn a_name_belongs_to_one_container() {
        let store = Store::in_memory().unwrap();
        store.insert_container(&row("1", "a")).unwrap();
        assert!(matches!(
            store.insert_container(&row("2", "a")),
            Err(Error::Taken { .. })
        ));
        store.insert_container(&row("2", "b")).unwrap();
        assert!(matches!(
            store.rename_container("2", "a"),
            Err(Error::Taken { .. })
        ));
        store.delete_container("1").unwrap();
        store.rename_container("2", "a").unwrap();
        assert_eq!(store.containers().unwrap(), [row("2", "a")]);
    }

    #[test]
    fn changes_are_all_or_none() {
        let store = Store::in_memory().unwrap();
        let put = |key: &str| Change::Put(Kind::Image, key.into(), "{}".into());
        store
            .apply(&[put("a"), put("b"), Change::Remove(Kind::Image, "a".into())])
            .unwrap();
        assert_eq!(
            store.list(Kind::Image).unwrap(),
            [("b".to_owned(), "{}".to_owned())]
        );
        assert_eq!(store.get(Kind::Image, "a").unwrap(), None);
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hull.db");
        Store::open(&path)
            .unwrap()
            .insert(Kind::Volume, "v", "{}")
            .unwrap();
        let store = Store::open(&path).unwrap();
        assert!(matches!(
            store.insert(Kind::Volume, "v", "{}"),
            Err(Error::Taken { .. })
        ));
    }

    #[test]
    fn a_database_of_a_newer_release_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hull.db");
        drop(Store::open(&path).unwrap());
        let raw = Connection::open(&path).unwrap();
        raw.pragma_update(None, "user_version", 1000).unwrap();
        assert!(matches!(
            Store::open(&path),
            Err(Error::Newer { found: 1000, .. })
        ));
    }
}
