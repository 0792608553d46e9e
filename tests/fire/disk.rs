//! A disk that forgets: what a power cut may leave of a folder, worked out from the trace of everything that was done there.
//!
//! The layer of `disk.c` stands between the real program and the real files and writes the trace. Here the trace is played
//! up to a moment, and what was not synced by then is lost, in whole or in part:
//!
//! - the content of a file is durable after fsync or fdatasync of it, as far as it was written before the sync began;
//! - a name in a folder (made, renamed, removed) is durable after fsync of the folder, and not before. That is what POSIX
//!   promises; common file systems keep more, and a program that is right here is right there;
//! - of what was not synced each sector of 512 bytes has, by itself, any of the states that it had since; the length of the
//!   file likewise; names survive in any choice, or in the order in which they were made. A sector is never torn, and writing
//!   one harms no other (SQLite, too, takes disks to be so);
//! - after a sync that failed, what it should have kept is in doubt for good: a later sync that succeeds says nothing about
//!   it, as on Linux, unless the page was written again;
//! - the index of SQLite's log, which is only ever mapped, is garbage.
//!
//! Knows nothing of what the files mean.

use super::Draw;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// Ends of names of files that are only mapped.
const MAPPED: &str = "-shm";

/// The layer, compiled once a process and once a version of its source.
pub fn layer() -> &'static Path {
    static LAYER: OnceLock<PathBuf> = OnceLock::new();
    LAYER.get_or_init(|| {
        let source = crate::program::root().join("tests/fire/disk.c");
        let text = fs::read(&source).expect("the source of the layer");
        let digest = qm2_core::digest::sha256_hex(&[&text]);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = folder.join(format!("disk-{}.so", &digest[..16]));
        if !library.exists() {
            let made = folder.join(format!("disk-{}.tmp", std::process::id()));
            let compiled = Command::new("cc")
                .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o"])
                .args([&made, &source])
                .output()
                .expect("a C compiler named `cc` is needed to build the disk layer of the tests; install gcc or clang");
            let says = String::from_utf8_lossy(&compiled.stderr);
            assert!(compiled.status.success(), "the disk layer does not compile: {says}");
            fs::rename(&made, &library).expect("the layer is put in its place");
        }
        library
    })
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Entry {
    Made {
        name: String,
        file: u64,
    },
    Opened {
        name: String,
        file: u64,
    },
    Written {
        file: u64,
        at: usize,
        data: Vec<u8>,
    },
    Cut {
        file: u64,
        len: usize,
    },
    SyncBegun {
        number: u64,
    },
    /// Of a file, or of a folder.
    Synced {
        file: u64,
        folder: String,
        number: u64,
        failed: bool,
    },
    Removed {
        name: String,
    },
    Renamed {
        from: String,
        to: String,
    },
    Folder {
        name: String,
    },
    FolderRemoved {
        name: String,
    },
    /// Appended to the journal by anybody.
    Journal(String),
    /// Printed by the program, with its command line, process id, and 1 for stdout or 2 for stderr.
    Said {
        by: String,
        pid: u32,
        stream: u64,
        text: String,
    },
    /// What is there after a kill: an operation may be done, but not yet be in the trace.
    Found(Found),
}

/// Folders, and files with their numbers and content, by names below the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub folders: Vec<String>,
    pub files: BTreeMap<String, (u64, Vec<u8>)>,
}

/// Everything below a folder that the layer traces; sockets and what is only mapped are left out.
pub fn look(root: &Path) -> Found {
    let mut found = Found::default();
    let mut folders = vec![(root.to_path_buf(), String::new())];
    while let Some((path, name)) = folders.pop() {
        for entry in fs::read_dir(&path)
            .expect("the folder is readable")
            .flatten()
        {
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            let Ok(kind) = entry.metadata() else { continue };
            if kind.is_dir() {
                found.folders.push(name.clone());
                folders.push((entry.path(), name));
            } else if kind.is_file() && !name.ends_with(MAPPED) {
                let content = fs::read(entry.path()).expect("the file is readable");
                found.files.insert(name, (kind.ino(), content));
            }
        }
    }
    found.folders.sort();
    found
}

/// The entries of a trace from a place on, and where it ends.
pub fn read(path: &Path, from: usize) -> (Vec<Entry>, usize) {
    let bytes = fs::read(path).unwrap_or_default();
    let mut rest = &bytes[from.min(bytes.len())..];
    let mut entries = Vec::new();
    let mut take = |count: usize| -> Vec<u8> {
        let (head, tail) = rest.split_at_checked(count).expect("the trace is whole");
        rest = tail;
        head.to_vec()
    };
    let mut left = bytes.len() - from.min(bytes.len());
    while left > 0 {
        let head = take(40);
        let small =
            |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let large =
            |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (kind, pid) = (small(0), small(4));
        let (data_bytes, file, at) = (large(16), large(24), large(32));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let name = text(take(small(8) as usize));
        let other = text(take(small(12) as usize));
        let data = take(data_bytes as usize);
        left -= 40 + name.len() + other.len() + data.len();
        entries.push(match kind {
            1 => Entry::Made { name, file },
            2 => Entry::Opened { name, file },
            3 => Entry::Written {
                file,
                at: at as usize,
                data,
            },
            4 => Entry::Cut {
                file,
                len: at as usize,
            },
            5 => Entry::SyncBegun { number: at },
            6 | 7 => Entry::Synced {
                file,
                folder: name,
                number: at,
                failed: kind == 7,
            },
            8 => Entry::Removed { name },
            9 => Entry::Renamed {
                from: name,
                to: other,
            },
            10 => Entry::Folder { name },
            11 => Entry::FolderRemoved { name },
            12 => Entry::Journal(text(data)),
            13 => Entry::Said {
                by: name,
                pid,
                stream: file,
                text: text(data),
            },
            _ => panic!("the trace has an entry of kind {kind}"),
        });
    }
    (entries, bytes.len())
}

/// A change of a file that is not durable yet.
#[derive(Clone)]
struct Change {
    /// When; the number of its entry.
    when: usize,
    /// Whether a sync that should have kept it failed.
    in_doubt: bool,
    what: What,
}

#[derive(Clone)]
enum What {
    /// Within one page.
    Write(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Clone, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
    live: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    File(usize),
    Folder(usize),
}

type Names = BTreeMap<String, Node>;

#[derive(Clone)]
enum Naming {
    Put(String, Node),
    Remove(String),
    /// At once: the new name is there if and only if the old one is gone.
    Rename(String, String, Node),
}

#[derive(Clone, Default)]
struct Folder {
    durable: Names,
    pending: Vec<(usize, Naming)>,
    live: Names,
}

/// What becomes of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it is gone.
    All,
    /// All of it happens to be there.
    Nothing,
    /// What came after some moment is gone.
    Tail,
    /// Sector by sector, name by name.
    Parts,
}

/// The folder as the trace makes it, with what of it is durable.
#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<File>,
    /// The first one is the folder itself.
    folders: Vec<Folder>,
    /// Files by the numbers that the system gives them now.
    numbers: BTreeMap<u64, usize>,
    /// When syncs that have not ended began.
    syncs: BTreeMap<u64, usize>,
    now: usize,
    /// Whether syncs are believed; a disk that lies forgets what was synced, too.
    lies: bool,
}

impl Disk {
    /// An empty folder, or one that holds this, durably.
    pub fn new(found: &Found) -> Self {
        let mut disk = Self {
            folders: vec![Folder::default()],
            ..Self::default()
        };
        disk.apply(&Entry::Found(found.clone()));
        for file in &mut disk.files {
            file.durable = file.live.clone();
            file.pending.clear();
        }
        for folder in &mut disk.folders {
            folder.durable = folder.live.clone();
            folder.pending.clear();
        }
        disk
    }

    /// The same disk, but one that says that it has synced and has not.
    pub fn lying(mut self) -> Self {
        self.lies = true;
        self
    }

    /// Plays one entry.
    pub fn apply(&mut self, entry: &Entry) {
        self.now += 1;
        match entry {
            // Who opens what another process has just made may be in the trace before that one is.
            Entry::Made { name, file } | Entry::Opened { name, file } => {
                let known = self.find(name);
                let is_known = known.is_some()
                    && known == self.numbers.get(file).map(|&file| Node::File(file));
                if !is_known {
                    assert!(
                        known.is_none(),
                        "{name} is not the file that was made under this name"
                    );
                    self.files.push(File::default());
                    self.numbers.insert(*file, self.files.len() - 1);
                    self.put(name, Node::File(self.files.len() - 1));
                }
            }
            Entry::Written { file, at, data } => self.write(self.numbers[file], *at, data),
            Entry::Cut { file, len } => self.cut_file(self.numbers[file], *len),
            Entry::SyncBegun { number } => {
                self.syncs.insert(*number, self.now);
            }
            Entry::Synced {
                file,
                folder,
                number,
                failed,
            } => {
                let begun = self.syncs.remove(number).unwrap_or(0);
                match (*file, self.find(folder)) {
                    _ if self.lies => {}
                    (0, Some(Node::Folder(folder))) if !failed => self.folders[folder].sync(begun),
                    (0, _) => {}
                    (file, _) => self.files[self.numbers[&file]].sync(begun, *failed),
                }
            }
            // A socket was never made here.
            Entry::Removed { name } | Entry::FolderRemoved { name } => {
                if self.find(name).is_some() {
                    self.remove(name);
                }
            }
            Entry::Renamed { from, to } => {
                let node = self.find(from).expect("what is renamed is there");
                let (folder, old) = self.place(from);
                let (other, new) = self.place(to);
                assert_eq!(
                    folder, other,
                    "a rename from folder to folder is not modelled"
                );
                self.name(folder, Naming::Rename(old, new, node));
            }
            Entry::Folder { name } => {
                self.folder(name);
            }
            Entry::Journal(_) | Entry::Said { .. } => {}
            Entry::Found(found) => self.correct(found),
        }
    }

    /// What is there as long as the power is.
    pub fn live(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        self.walk(
            0,
            "",
            &|folder| self.folders[folder].live.clone(),
            &mut |name, node| {
                if let Node::File(file) = node {
                    files.insert(name.to_owned(), self.files[file].live.clone());
                }
            },
        );
        files
    }

    /// Cuts the power: writes what is left into an empty folder.
    pub fn cut_power(&self, loss: Loss, draw: &mut Draw, into: &Path) {
        let moment = draw.below(self.now as u64 + 1) as usize;
        let in_order = draw.below(2) == 0;
        let mut names: Vec<Names> = Vec::new();
        for folder in &self.folders {
            let left = draw.below(folder.pending.len() as u64 + 1) as usize;
            let mut kept = folder.durable.clone();
            for (at, (when, naming)) in folder.pending.iter().enumerate() {
                let survives = match loss {
                    Loss::All => false,
                    Loss::Nothing => true,
                    Loss::Tail => *when <= moment,
                    Loss::Parts if in_order => at < left,
                    Loss::Parts => draw.below(2) == 0,
                };
                if survives {
                    naming.apply(&mut kept);
                }
            }
            names.push(kept);
        }
        let contents: Vec<Vec<u8>> = self
            .files
            .iter()
            .map(|file| file.after(loss, moment, draw))
            .collect();
        self.walk(0, "", &|folder| names[folder].clone(), &mut |name, node| {
            let path = into.join(name.trim_start_matches('/'));
            match node {
                Node::Folder(_) => fs::create_dir_all(&path).expect("a folder of the image"),
                Node::File(_) if name.ends_with(MAPPED) => {
                    let garbage: Vec<u8> = (0..8 * PAGE).map(|_| draw.below(256) as u8).collect();
                    fs::write(&path, garbage).expect("a file of the image");
                }
                Node::File(file) => fs::write(&path, &contents[file]).expect("a file of the image"),
            }
        });
    }

    fn walk(
        &self,
        folder: usize,
        name: &str,
        names: &dyn Fn(usize) -> Names,
        take: &mut dyn FnMut(&str, Node),
    ) {
        for (entry, node) in names(folder) {
            let name = format!("{name}/{entry}");
            take(&name, node);
            if let Node::Folder(folder) = node {
                self.walk(folder, &name, names, take);
            }
        }
    }

    fn find(&self, name: &str) -> Option<Node> {
        let mut node = Node::Folder(0);
        for part in name.split('/').filter(|part| !part.is_empty()) {
            let Node::Folder(folder) = node else {
                return None;
            };
            node = *self.folders[folder].live.get(part)?;
        }
        Some(node)
    }

    /// The folder of this name. Who works in one that another thread has just made may be in the trace before that one is.
    fn folder(&mut self, name: &str) -> usize {
        match self.find(name) {
            Some(Node::Folder(folder)) => folder,
            Some(Node::File(_)) => panic!("{name} is a file"),
            None => {
                self.folders.push(Folder::default());
                let made = self.folders.len() - 1;
                self.put(name, Node::Folder(made));
                made
            }
        }
    }

    /// The folder of a name, and the name in it.
    fn place(&mut self, name: &str) -> (usize, String) {
        let (folder, entry) = name.rsplit_once('/').expect("names begin with a slash");
        (self.folder(folder), entry.to_owned())
    }

    fn name(&mut self, folder: usize, naming: Naming) {
        let now = self.now;
        naming.apply(&mut self.folders[folder].live);
        self.folders[folder].pending.push((now, naming));
    }

    fn put(&mut self, name: &str, node: Node) {
        let (folder, entry) = self.place(name);
        self.name(folder, Naming::Put(entry, node));
    }

    fn remove(&mut self, name: &str) {
        let (folder, entry) = self.place(name);
        self.name(folder, Naming::Remove(entry));
    }

    fn write(&mut self, file: usize, at: usize, data: &[u8]) {
        let now = self.now;
        let file = &mut self.files[file];
        let (mut at, mut data) = (at, data);
        while !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min(PAGE - at % PAGE));
            // The page is written as a whole the next time, with what was in doubt on it.
            for change in &mut file.pending {
                if matches!(&change.what, What::Write(other, _) if other / PAGE == at / PAGE) {
                    change.in_doubt = false;
                }
            }
            let what = What::Write(at, piece.to_vec());
            what.apply(&mut file.live);
            file.pending.push(Change {
                when: now,
                in_doubt: false,
                what,
            });
            (at, data) = (at + piece.len(), rest);
        }
    }

    fn cut_file(&mut self, file: usize, len: usize) {
        let now = self.now;
        let file = &mut self.files[file];
        let what = What::Cut(len);
        what.apply(&mut file.live);
        file.pending.push(Change {
            when: now,
            in_doubt: false,
            what,
        });
    }

    /// Makes the live state what was found, as something that has just happened.
    fn correct(&mut self, found: &Found) {
        let mut known = BTreeMap::new();
        self.walk(
            0,
            "",
            &|folder| self.folders[folder].live.clone(),
            &mut |name, node| {
                known.insert(name.to_owned(), node);
            },
        );
        // What is in a folder goes before the folder.
        for (name, node) in known.iter().rev() {
            let is_there = match node {
                Node::Folder(_) => found.folders.contains(name),
                Node::File(file) => {
                    let number = found.files.get(name).map(|(number, _)| number);
                    number.is_some_and(|number| self.numbers.get(number) == Some(file))
                        || name.ends_with(MAPPED)
                }
            };
            if !is_there {
                self.remove(name);
            }
        }
        for name in &found.folders {
            self.folder(name);
        }
        for (name, (number, content)) in &found.files {
            if self.find(name).is_none() {
                self.files.push(File::default());
                self.numbers.insert(*number, self.files.len() - 1);
                self.put(name, Node::File(self.files.len() - 1));
            }
            let file = self.numbers[number];
            if self.files[file].live.len() > content.len() {
                self.cut_file(file, content.len());
            }
            for (index, page) in content.chunks(PAGE).enumerate() {
                let at = index * PAGE;
                let live = &self.files[file].live;
                if live.get(at..at + page.len()) != Some(page) {
                    self.write(file, at, page);
                }
            }
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Put(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Folder {
    fn sync(&mut self, begun: usize) {
        let (kept, pending) = self.pending.drain(..).partition(|(when, _)| *when < begun);
        self.pending = pending;
        let kept: Vec<(usize, Naming)> = kept;
        for (_, naming) in kept {
            naming.apply(&mut self.durable);
        }
    }
}

impl File {
    fn sync(&mut self, begun: usize, failed: bool) {
        if failed {
            for change in self.pending.iter_mut().filter(|change| change.when < begun) {
                change.in_doubt = matches!(change.what, What::Write(..));
            }
            return;
        }
        let is_kept = |change: &Change| change.when < begun && !change.in_doubt;
        let (kept, pending): (Vec<_>, Vec<_>) = self.pending.drain(..).partition(is_kept);
        self.pending = pending;
        for change in kept {
            change.what.apply(&mut self.durable);
        }
    }

    /// What is left of it.
    fn after(&self, loss: Loss, moment: usize, draw: &mut Draw) -> Vec<u8> {
        let mut left = self.durable.clone();
        if loss != Loss::Parts {
            for change in &self.pending {
                if loss == Loss::Nothing || loss == Loss::Tail && change.when <= moment {
                    change.what.apply(&mut left);
                }
            }
            return left;
        }
        // Of each sector, how many of its changes reached the disk, and how many were looked at.
        let mut sectors: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let longest = self
            .pending
            .iter()
            .map(Change::end)
            .max()
            .unwrap_or(0)
            .max(left.len());
        for change in &self.pending {
            for sector in change.sectors(longest) {
                sectors.entry(sector).or_default().0 += 1;
            }
        }
        for (reached, _) in sectors.values_mut() {
            *reached = draw.below(*reached + 1);
        }
        let mut lengths = vec![left.len()];
        left.resize(longest, 0);
        for change in &self.pending {
            let before = lengths.last().copied().unwrap_or(0);
            for sector in change.sectors(longest) {
                let (reached, seen) = sectors.get_mut(&sector).expect("it was counted");
                *seen += 1;
                if *seen <= *reached {
                    change.apply_to_sector(sector, &mut left);
                }
            }
            lengths.push(match change.what {
                What::Write(..) => before.max(change.end()),
                What::Cut(len) => len,
            });
        }
        left.truncate(lengths[draw.below(lengths.len() as u64) as usize]);
        left
    }
}

impl Change {
    /// Where it ends.
    fn end(&self) -> usize {
        match &self.what {
            What::Write(at, data) => at + data.len(),
            What::Cut(len) => *len,
        }
    }

    /// The sectors that it changes, of a file of this length.
    fn sectors(&self, longest: usize) -> std::ops::Range<usize> {
        match &self.what {
            What::Write(at, _) => at / SECTOR..self.end().div_ceil(SECTOR),
            What::Cut(len) => len / SECTOR..longest.div_ceil(SECTOR),
        }
    }

    fn apply_to_sector(&self, sector: usize, content: &mut [u8]) {
        let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(content.len()));
        match &self.what {
            What::Write(at, data) => {
                let (from, to) = (from.max(*at), to.min(at + data.len()));
                content[from..to].copy_from_slice(&data[from - at..to - at]);
            }
            What::Cut(len) => content[from.max(*len).min(to)..to].fill(0),
        }
    }
}

impl What {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                if content.len() < at + data.len() {
                    content.resize(at + data.len(), 0);
                }
                content[*at..at + data.len()].copy_from_slice(data);
            }
            Self::Cut(len) => content.resize(*len, 0),
        }
    }
}
