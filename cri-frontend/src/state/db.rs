//! The database of records: one thread writes, and what waits meanwhile goes into one commit.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableError, WriteTransaction};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::{
    StateError,
    tables::{META, Table, VERSION, VERSION_KEY},
};
use crate::clock::unix_nanos;

/// Records are small and few; the default of 1 GiB is not for us.
const CACHE_BYTES: usize = 512 * 1024;
/// Writes that may wait for the thread.
const QUEUE: usize = 64;

/// A change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes a record.
    Put(Table, String, Vec<u8>),
    /// Forgets a record; the unknown is forgotten already.
    Delete(Table, String),
}

/// What was in the database when it was opened: keys and values.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Pod sandboxes.
    pub sandboxes: Vec<(String, Vec<u8>)>,
    /// Containers.
    pub containers: Vec<(String, Vec<u8>)>,
}

/// The open database. When the last clone is dropped, its thread ends after what was queued.
#[derive(Debug, Clone)]
pub struct Db {
    queue: mpsc::Sender<Write>,
}

#[derive(Debug)]
struct Write {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), StateError>>,
}

impl Db {
    /// Makes all changes or none, durably.
    pub async fn write(&self, changes: Vec<Change>) -> Result<(), StateError> {
        let (done, result) = oneshot::channel();
        let ended = || StateError::NotWritten("the database's thread has ended".into());
        self.queue.send(Write { changes, done }).await.map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }
}

#[cfg(test)]
impl Db {
    /// Without a file: its first write fails, and what later ones write is told.
    pub fn that_refuses_once() -> (Self, mpsc::Receiver<Vec<Change>>) {
        let (queue, mut writes) = mpsc::channel::<Write>(QUEUE);
        let (tell, told) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            if let Some(first) = writes.recv().await {
                let _ = first.done.send(Err(StateError::NotWritten("the disk is full".into())));
            }
            while let Some(write) = writes.recv().await {
                let _ = tell.send(write.changes).await;
                let _ = write.done.send(Ok(()));
            }
        });
        (Self { queue }, told)
    }
}

/// Opens or makes the database. One that is torn, empty or of a newer version is set aside, kept for diagnosis,
/// and a new one begun: the pods' own directories tell what lives. One that only cannot be opened now stays.
pub fn open(path: &Path) -> Result<(Db, Loaded), StateError> {
    let (database, loaded) = match open_existing(path) {
        Ok(Some(opened)) => opened,
        Ok(None) => create(path)?,
        Err(error) if !error.blames_the_file() => return Err(error),
        Err(reason) => {
            let kept = set_aside(path)?;
            error!(%reason, kept = %kept.display(), "the records were unreadable and are set aside; live pods are recovered from their shims");
            create(path)?
        }
    };
    let (queue, writes) = mpsc::channel(QUEUE);
    let writer = Writer { path: path.to_owned(), database: Some(database) };
    thread::Builder::new().name("records".into()).spawn(move || writer.run(writes)).map_err(|source| {
        StateError::File { action: "start the thread of", path: path.to_owned(), source }
    })?;
    Ok((Db { queue }, loaded))
}

fn open_existing(path: &Path) -> Result<Option<(Database, Loaded)>, StateError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::File { action: "open", path: path.to_owned(), source }),
        Ok(file) if file.len() == 0 => return Err(StateError::NotWritten("the file is empty".into())),
        Ok(_) => {}
    }
    let database = builder().set_check_integrity_on_open(true).open(path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StateError::InUse { path: path.to_owned() },
        error => failed("open")(error),
    })?;
    let loaded = load(&database)?;
    Ok(Some((database, loaded)))
}

fn create(path: &Path) -> Result<(Database, Loaded), StateError> {
    let database = builder().create(path).map_err(failed("create"))?;
    let transaction = database.begin_write().map_err(failed("begin"))?;
    {
        let mut meta = transaction.open_table(META).map_err(failed("make the tables"))?;
        meta.insert(VERSION_KEY, VERSION).map_err(failed("write the version"))?;
    }
    transaction.commit().map_err(failed("commit"))?;
    Ok((database, Loaded::default()))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn load(database: &Database) -> Result<Loaded, StateError> {
    let transaction = database.begin_read().map_err(failed("read"))?;
    let meta = transaction.open_table(META).map_err(failed("read the version"))?;
    let version = meta.get(VERSION_KEY).map_err(failed("read the version"))?.map(|value| value.value());
    match version {
        Some(VERSION) => {}
        Some(other) => {
            return Err(StateError::NotWritten(format!(
                "their version is {other}, this frontend knows {VERSION}"
            )));
        }
        None => return Err(StateError::NotWritten("their version is missing".into())),
    }
    let rows = |table: Table| match transaction.open_table(table.definition()) {
        Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
        Err(error) => Err(failed("read")(error)),
        Ok(table) => table
            .iter()
            .map_err(failed("read"))?
            .map(|row| row.map(|(key, value)| (key.value().to_owned(), value.value().to_vec())))
            .collect::<Result<_, _>>()
            .map_err(failed("read")),
    };
    Ok(Loaded { sandboxes: rows(Table::Sandboxes)?, containers: rows(Table::Containers)? })
}

fn set_aside(path: &Path) -> Result<PathBuf, StateError> {
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".unreadable-{}", unix_nanos()));
    let kept = PathBuf::from(kept);
    fs::rename(path, &kept).map_err(|source| StateError::File {
        action: "set aside",
        path: path.to_owned(),
        source,
    })?;
    Ok(kept)
}

struct Writer {
    path: PathBuf,
    /// None after a failed commit: the database refuses all others until it is opened anew.
    database: Option<Database>,
}

impl Writer {
    fn run(mut self, mut writes: mpsc::Receiver<Write>) {
        while let Some(first) = writes.blocking_recv() {
            let mut batch = vec![first];
            while let Ok(next) = writes.try_recv() {
                batch.push(next);
            }
            let outcome = self.write(&batch).map_err(|error| {
                warn!(%error, writes = batch.len(), "records were not written");
                error.to_string()
            });
            for write in batch {
                // Who no longer waits was cancelled.
                let _ = write.done.send(outcome.clone().map_err(StateError::NotWritten));
            }
        }
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => builder().open(&self.path)?,
        };
        commit(&database, batch)?;
        self.database = Some(database);
        Ok(())
    }
}

fn commit(database: &Database, batch: &[Write]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for change in batch.iter().flat_map(|write| &write.changes) {
        apply(&transaction, change)?;
    }
    transaction.commit()?;
    Ok(())
}

fn apply(transaction: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Put(table, key, value) => {
            transaction.open_table(table.definition())?.insert(key.as_str(), value.as_slice())?;
        }
        Change::Delete(table, key) => {
            transaction.open_table(table.definition())?.remove(key.as_str())?;
        }
    }
    Ok(())
}

impl StateError {
    /// Whether another file would do: not where the node lacks room, descriptors or permission.
    fn blames_the_file(&self) -> bool {
        let cause = match self {
            Self::InUse { .. } => return false,
            Self::File { source, .. } => Some(source),
            Self::Database { source, .. } => match source.as_ref() {
                redb::Error::Io(error) => Some(error),
                _ => None,
            },
            Self::Encode { .. } | Self::NotWritten(_) => None,
        };
        let errno = cause.and_then(Errno::from_io_error);
        !matches!(
            errno,
            Some(
                Errno::NOSPC
                    | Errno::DQUOT
                    | Errno::ROFS
                    | Errno::MFILE
                    | Errno::NFILE
                    | Errno::NOMEM
                    | Errno::ACCESS
                    | Errno::PERM
            )
        )
    }
}

fn failed<E: Into<redb::Error>>(action: &'static str) -> impl FnOnce(E) -> StateError {
    move |error| StateError::Database { action, source: Box::new(error.into()) }
}

#[cfg(test)]
mod tests {
    use rustix::{
        mount::{MountFlags, MountPropagationFlags, mount, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };

    use super::*;

    fn put(key: &str, value: &str) -> Vec<Change> {
        vec![Change::Put(Table::Sandboxes, key.into(), value.into())]
    }

    async fn reopen(db: Db, path: &Path) -> (Db, Loaded) {
        drop(db);
        loop {
            match open(path) {
                Err(StateError::InUse { .. }) => tokio::task::yield_now().await,
                other => return other.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn records_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let (db, loaded) = open(&path).unwrap();
        assert!(loaded.sandboxes.is_empty());
        assert!(matches!(open(&path), Err(StateError::InUse { .. })));
        db.write(put("a", "1")).await.unwrap();
        db.write(put("b", "2")).await.unwrap();
        db.write(vec![Change::Delete(Table::Sandboxes, "a".into())]).await.unwrap();
        let (_db, loaded) = reopen(db, &path).await;
        assert_eq!(loaded.sandboxes, [("b".to_owned(), b"2".to_vec())]);
    }

    /// Does something in a directory whose disk has so many bytes.
    fn on_small_disk(bytes: u64, work: impl FnOnce(&Path) + Send) {
        let dir = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            let outcome = scope.spawn(|| {
                // SAFETY: only CLONE_FILES could pull file descriptors from under other threads; this is CLONE_NEWNS.
                unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
                mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
                let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
                mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
                work(dir.path());
            });
            outcome.join().unwrap();
        });
    }

    #[test]
    fn a_full_disk_fails_the_write_and_costs_nothing_else() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        on_small_disk(4 << 20, |dir| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let path = dir.join("state.redb");
            let (db, _) = open(&path).unwrap();
            runtime.block_on(db.write(put("first", "1"))).unwrap();
            let filler = fs::write(dir.join("filler"), vec![0; 4 << 20]);
            assert_eq!(filler.unwrap_err().kind(), io::ErrorKind::StorageFull);
            let big = "x".repeat(1 << 20);
            let mut failures = 0;
            for turn in 0..20 {
                match runtime.block_on(db.write(put(&format!("big{turn}"), &big))) {
                    Ok(()) => assert_eq!(failures, 0, "no room, and then some"),
                    Err(error) => {
                        failures += 1;
                        assert!(error.to_string().contains("No space"), "{error}");
                    }
                }
            }
            assert!(failures > 1);
            fs::remove_file(dir.join("filler")).unwrap();
            runtime.block_on(db.write(put("last", "2"))).unwrap();
            let (_db, loaded) = runtime.block_on(reopen(db, &path));
            let keys: Vec<_> = loaded.sandboxes.iter().map(|(key, _)| key.as_str()).collect();
            assert!(keys.contains(&"first") && keys.contains(&"last"), "{keys:?}");
            assert_eq!(fs::read_dir(dir).unwrap().count(), 1, "nothing was set aside");
        });
    }

    #[test]
    fn records_are_set_aside_only_where_they_are_at_fault() {
        let file = |errno: Errno| StateError::File { action: "open", path: "x".into(), source: errno.into() };
        let database = |errno: Errno| failed("open")(redb::StorageError::Io(errno.into()));
        for errno in [Errno::NOSPC, Errno::MFILE, Errno::ROFS] {
            assert!(!file(errno).blames_the_file() && !database(errno).blames_the_file());
        }
        assert!(database(Errno::IO).blames_the_file());
        assert!(failed("open")(redb::StorageError::Corrupted("x".into())).blames_the_file());
    }

    #[tokio::test]
    async fn unreadable_records_are_set_aside() {
        for content in [&b""[..], b"garbage", &[0u8; 8192]] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.redb");
            fs::write(&path, content).unwrap();
            let (_db, loaded) = open(&path).unwrap();
            assert!(loaded.sandboxes.is_empty());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the old file is kept");
        }
    }

    #[tokio::test]
    async fn a_file_torn_anywhere_loses_no_more_than_its_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let (db, _) = open(&path).unwrap();
        for key in ["a", "b", "c"] {
            db.write(put(key, &"x".repeat(3000))).await.unwrap();
        }
        drop(reopen(db, &path).await);
        let whole = fs::read(&path).unwrap();
        let step = whole.len() / 64;
        for at in (1..whole.len()).step_by(step) {
            let mut damaged = whole.clone();
            damaged[at..(at + 64).min(whole.len())].fill(0xa5);
            for content in [&whole[..at], &damaged] {
                let path = dir.path().join(format!("torn-{at}-{}", content.len()));
                fs::write(&path, content).unwrap();
                let (_db, loaded) = open(&path).unwrap();
                assert!(loaded.sandboxes.len() <= 3);
            }
        }
    }
}
