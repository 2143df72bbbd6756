//! The folder of the tables of one nginx: its files are created, taken over from an earlier run, and
//! written as the roster of a table decides.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::claims::WorkerColumns;
use super::layout::{
    COUNTS_DATA, COUNTS_MAGIC, HEAD_AT, HEAD_BYTES, Head, MAX_CAPACITY, MAX_COLUMNS, MEMBERS_MAGIC,
    PAGE, SLOT, SlotRecord, WORKER, WORKER_DATA, WORKERS_MAGIC, cell_at, order_at, slot_at,
};
use super::roster::{Roster, TableWrite};
use super::table::{MemberTable, Traffic, allocated, traffic_of};

/// The user that the workers run as: they write counts, and connect to our sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerUser {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// The folder of one nginx.
#[derive(Debug)]
pub struct TableFolder {
    path: PathBuf,
    user: Option<WorkerUser>,
    /// The least room of a table.
    capacity: u32,
    /// Which workers are alive, and count.
    pub workers: WorkerColumns,
}

impl TableFolder {
    /// Opens the folder, creating what is missing. Without `user` the workers run as we do.
    ///
    /// # Errors
    /// When it cannot be created, or made accessible to the workers.
    pub fn open(
        path: &Path,
        user: Option<WorkerUser>,
        capacity: u32,
        columns: u32,
    ) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        // No other user may enter: nginx makes its sockets writable for everybody.
        let mode = if user.is_some() { 0o710 } else { 0o700 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        if let Some(user) = user {
            std::os::unix::fs::chown(path, None, Some(user.gid))?;
        }
        let file = path.join("workers");
        let columns = columns.clamp(1, MAX_COLUMNS);
        let workers = match open_known(&file, &WORKERS_MAGIC)? {
            Some((file, header)) => WorkerColumns::new(file, header.columns_of_workers()),
            None => {
                let length = WORKER_DATA + u64::from(columns) * WORKER;
                let mut bytes = vec![0; length.max(PAGE) as usize];
                put(&mut bytes, 0, &WORKERS_MAGIC);
                put(&mut bytes, 8, &columns.to_le_bytes());
                let file = create(&file, user, true, |file| file.write_all_at(&bytes, 0))?;
                WorkerColumns::new(file, columns)
            }
        };
        Ok(Self { path: path.into(), user, capacity, workers })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The table of the upstream `name`, with room for this many members and as many that leave: as
    /// an earlier run left it, or a new one.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn table(&self, name: &str, members: usize) -> io::Result<MemberTable> {
        let capacity = self.capacity_for(members);
        match self.recover(name)? {
            Some(table) if table.capacity >= capacity => Ok(table),
            _ => self.create_table(name, capacity),
        }
    }

    /// The room that a table needs, so that slots stay free for those that leave.
    pub(super) fn capacity_for(&self, members: usize) -> u32 {
        let needed = u32::try_from(members).unwrap_or(MAX_CAPACITY).saturating_mul(2);
        needed.next_power_of_two().clamp(self.capacity, MAX_CAPACITY)
    }

    fn recover(&self, name: &str) -> io::Result<Option<MemberTable>> {
        let columns = self.workers.columns();
        let Some(found) = TableFiles::open(&self.path, name, columns)? else { return Ok(None) };
        let TableFiles { members, counts, capacity, instance, head, records } = found;
        let roster = Roster::recover(capacity, head.sequence, records);
        let is_new = false;
        Ok(Some(MemberTable { roster, members, counts, capacity, columns, instance, is_new }))
    }

    fn create_table(&self, name: &str, capacity: u32) -> io::Result<MemberTable> {
        let (members, counts) = files_of(&self.path, name);
        let instance = fastrand::u64(1..);
        let header = |magic: &[u8], columns: u32, length: u64| {
            let mut bytes = vec![0; length as usize];
            put(&mut bytes, 0, magic);
            put(&mut bytes, 8, &capacity.to_le_bytes());
            put(&mut bytes, 12, &columns.to_le_bytes());
            put(&mut bytes, 16, &instance.to_le_bytes());
            bytes
        };
        let columns = self.workers.columns();
        let counts = create(&counts, self.user, true, |file| {
            file.write_all_at(&header(&COUNTS_MAGIC, columns, COUNTS_DATA), 0)?;
            file.set_len(cell_at(capacity, columns, 0))
        })?;
        let roster = Roster::empty(capacity);
        let members = create(&members, self.user, false, |file| {
            let mut bytes = header(&MEMBERS_MAGIC, 0, order_at(capacity, 0, 0));
            put(&mut bytes, HEAD_AT as usize, &roster.head().encode());
            file.write_all_at(&bytes, 0)?;
            file.set_len(slot_at(capacity, capacity))
        })?;
        let is_new = true;
        Ok(MemberTable { roster, members, counts, capacity, columns, instance, is_new })
    }

    /// Writes the changes in the roster of `table`. When it returns, every new pick uses them.
    ///
    /// # Errors
    /// When a write fails: then the table must be opened again.
    pub fn commit(&self, table: &mut MemberTable) -> io::Result<()> {
        for write in table.roster.commit() {
            match write {
                TableWrite::Barrier => self.workers.barrier()?,
                write => table.write(&write)?,
            }
        }
        Ok(())
    }

    /// The requests that living workers have in flight to a slot. Exact for one that left before
    /// the last commit, as long as [`WorkerColumns::is_exact`].
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn in_flight(&self, table: &MemberTable, slot: u32) -> io::Result<u64> {
        let mut sum = 0;
        for cell in self.cells(table, slot)? {
            let (column, cell) = cell?;
            // The counts of a worker that has ended are no longer in flight.
            if cell.in_flight > 0 && self.workers.is_alive(column)? {
                sum += cell.in_flight;
            }
        }
        Ok(sum)
    }

    /// Whether any worker has ever sent a request to the backend in this slot.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn has_had_requests(&self, table: &MemberTable, slot: u32) -> io::Result<bool> {
        for cell in self.cells(table, slot)? {
            if cell?.1.requests > 0.0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The counts of a slot, and the columns that they are in.
    fn cells<'t>(
        &self,
        table: &'t MemberTable,
        slot: u32,
    ) -> io::Result<impl Iterator<Item = io::Result<(u32, Traffic)>> + 't> {
        let columns = allocated(&table.counts, self.workers.columns())?;
        let columns = columns.into_iter().filter(move |(_, known)| slot < *known);
        Ok(columns.map(move |(column, _)| Ok((column, table.cell(column, slot)?))))
    }

    /// The counts of all workers for each of the first slots, in order.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn traffic(&self, table: &MemberTable) -> io::Result<Vec<Traffic>> {
        traffic_of(&table.counts, table.capacity, table.roster.head().slots, &self.workers)
    }
}

/// The files of a table that is there: both, and each made for the other.
pub(super) struct TableFiles {
    members: File,
    pub(super) counts: File,
    pub(super) capacity: u32,
    instance: u64,
    pub(super) head: Head,
    /// What the slots in use have.
    pub(super) records: Vec<SlotRecord>,
}

impl TableFiles {
    /// Opens them; one of them may be about to be replaced, and fits the other only afterwards.
    pub(super) fn open(folder: &Path, name: &str, columns: u32) -> io::Result<Option<Self>> {
        let (members, counts) = files_of(folder, name);
        let members = open_known(&members, &MEMBERS_MAGIC)?;
        let counts = open_known(&counts, &COUNTS_MAGIC)?;
        let (Some((members, header)), Some((counts, of_counts))) = (members, counts) else {
            return Ok(None);
        };
        let (capacity, instance) = (header.capacity(), header.instance());
        let fits = instance == of_counts.instance()
            && capacity == of_counts.capacity()
            && capacity <= MAX_CAPACITY
            && columns == of_counts.columns();
        let mut head = [0; HEAD_BYTES];
        members.read_exact_at(&mut head, HEAD_AT)?;
        let Some(head) = Head::decode(&head).filter(|head| fits && head.slots <= capacity) else {
            return Ok(None);
        };
        let mut bytes = vec![0; head.slots as usize * SLOT];
        members.read_exact_at(&mut bytes, slot_at(capacity, 0))?;
        let records = bytes.as_chunks().0.iter().map(SlotRecord::decode).collect();
        Ok(Some(Self { members, counts, capacity, instance, head, records }))
    }
}

fn files_of(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}.members")), folder.join(format!("{name}.counts")))
}

/// The first words of a file.
pub(super) struct Header([u8; 24]);

impl Header {
    fn word(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    }

    fn capacity(&self) -> u32 {
        self.word(8)
    }

    pub(super) fn columns_of_workers(&self) -> u32 {
        self.word(8)
    }

    fn columns(&self) -> u32 {
        self.word(12)
    }

    fn instance(&self) -> u64 {
        u64::from(self.word(16)) | u64::from(self.word(20)) << 32
    }
}

/// Opens a file of ours; `None` if there is none, or it is of another version.
pub(super) fn open_known(path: &Path, magic: &[u8]) -> io::Result<Option<(File, Header)>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut header = [0; 24];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) if header.starts_with(magic) => Ok(Some((file, Header(header)))),
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces any file of that name; workers see the new one only when it is complete.
fn create(
    path: &Path,
    user: Option<WorkerUser>,
    workers_write: bool,
    fill: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<File> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    let staged = PathBuf::from(staged);
    let mode = if workers_write { 0o660 } else { 0o640 };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&staged)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    if let Some(user) = user {
        fchown(&file, None, Some(user.gid))?;
    }
    fill(&file)?;
    fs::rename(&staged, path)?;
    Ok(file)
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + part.len()) {
        place.copy_from_slice(part);
    }
}
