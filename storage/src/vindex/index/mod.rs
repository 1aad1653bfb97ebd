//! Indexes: files beside a vindex that find features without a scan (`docs/formats/index.md`).
//!
//! `NAME.index` holds sections of bytes, then a header in JSON that names them with their checksums, then
//! a trailer that says where the header is. An index is no part of the vindex's manifest or identity:
//! it can be made, replaced and removed at any time. It names the weights and what else it was made
//! from, so that a stale one is known.
//!
//! Promises: a header that parses has every section within the file, none over another; a section is
//! compared with its checksum before its first byte is handed out, once. A file is written beside its
//! place and moved in whole.
//!
//! Elsewhere: what the sections of a method mean ([`postings`], [`graph`], `larqld/src/indexes`).

pub mod graph;
pub mod postings;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::{Checksum, Checksummer};
use crate::file::{Claim, FileWrite, Files, Mapping, parent_of};

/// The ending of an index's file name.
pub const INDEX_SUFFIX: &str = ".index";
/// The version that is written and read.
pub const INDEX_VERSION: u32 = 1;
/// Most bytes of an index's name.
pub const NAME_BYTES_MAX: usize = 63;
/// Most sections of a file.
pub const SECTIONS_MAX: usize = 1 << 16;
/// Sections begin at multiples of this.
const ALIGNMENT: u64 = 64;
/// What a file begins with, padded with zeros to [`ALIGNMENT`].
const MAGIC: &[u8] = b"larql-index 1\n";
/// Where the header begins, how long it is, and its SHA-256.
const TRAILER_BYTES: usize = 8 + 8 + 32;
/// Largest header that is read.
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Whether a text can be an index's name: a letter or `_`, then letters, digits and `_`, all of them ASCII
/// in lower case.
pub fn is_index_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// What an index says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexHeader {
    /// What is indexed: `gates`, `targets` or `labels`.
    pub target: String,
    /// How: `postings`, `sketch`, `coarse_sketch` or `hnsw`.
    pub method: String,
    /// The identity of the vindex's weights, in hexadecimal.
    pub base_hash: String,
    /// What else it was made from; another value there makes it stale.
    pub made_from: String,
    /// The program and version that made it.
    pub generator: String,
    /// What can be looked up: distinct texts, or vectors.
    pub keys: u64,
    /// What can be found: features.
    pub entries: u64,
    /// The share of the exact answers that it finds, measured when it was made; `None` where it finds all.
    pub recall: Option<f64>,
    /// The parts of the file, in order.
    pub sections: Vec<SectionRecord>,
}

/// A part of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SectionRecord {
    /// What it is to its method.
    pub name: String,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: Checksum,
}

/// Why an index was refused, or not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The file could not be read or written.
    #[error("could not {action} {}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is not what the format promises.
    #[error("{} is not an index: {problem}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Its bytes are not those that were written.
    #[error("{} is damaged: {what} has another checksum", .path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: String,
    },
    /// Somebody else is making it.
    #[error("{} is being made by somebody else", .path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
}

impl IndexError {
    pub(crate) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), problem: problem.into() }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Where an index of that name lies.
pub fn index_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}{INDEX_SUFFIX}"))
}

/// The names of the indexes of a vindex directory, in order.
///
/// # Errors
/// When the directory cannot be listed.
pub fn index_names(files: &Arc<dyn Files>, directory: &Path) -> io::Result<Vec<String>> {
    let name = |entry: &std::ffi::OsString| {
        let name = entry.to_str()?.strip_suffix(INDEX_SUFFIX)?;
        is_index_name(name).then(|| name.to_owned())
    };
    Ok(files.list(directory)?.iter().filter_map(name).collect())
}

/// Removes an index, durably.
///
/// # Errors
/// `Io`.
pub fn remove_index(
    files: &Arc<dyn Files>,
    directory: &Path,
    name: &str,
) -> Result<(), IndexError> {
    let path = index_path(directory, name);
    files.remove_file(&path).map_err(IndexError::io("remove", &path))?;
    files.sync_dir(directory).map_err(IndexError::io("sync", directory))
}

/// An index file, mapped.
#[derive(Debug)]
pub struct IndexFile {
    mapping: Arc<dyn Mapping>,
    header: IndexHeader,
    /// Whether each section was found to be as its checksum says.
    sound: Vec<OnceLock<bool>>,
}

impl IndexFile {
    /// Maps a file and checks its header; reads no section.
    ///
    /// # Errors
    /// What is wrong with it, by the first thing that is.
    pub fn open(files: &Arc<dyn Files>, path: &Path) -> Result<Self, IndexError> {
        let mapping = files.map(path).map_err(IndexError::io("map", path))?;
        let header = parse(mapping.bytes(), path)?;
        let sound = header.sections.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { mapping, header, sound })
    }

    /// The header.
    pub fn header(&self) -> &IndexHeader {
        &self.header
    }

    /// The file's length in bytes.
    pub fn bytes(&self) -> u64 {
        self.mapping.bytes().len() as u64
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        self.mapping.path()
    }

    /// The bytes of a section, by its number. The first call for a section reads all of it.
    ///
    /// # Errors
    /// `Format` where there is none, `Checksum` where it is not what was written.
    pub fn section(&self, number: usize) -> Result<&[u8], IndexError> {
        let (Some(record), Some(sound)) =
            (self.header.sections.get(number), self.sound.get(number))
        else {
            return Err(IndexError::format(self.path(), format!("it has no section {number}")));
        };
        let bytes = &self.mapping.bytes()[record.offset as usize..][..record.bytes as usize];
        match *sound.get_or_init(|| Checksum::of(bytes) == record.sha256) {
            true => Ok(bytes),
            false => {
                let what = format!("section {:?}", record.name);
                Err(IndexError::Checksum { path: self.path().to_owned(), what })
            }
        }
    }

    /// As [`Mapping::check`]: whoever computed with sections asks before using the result.
    ///
    /// # Errors
    /// `Io` where the file changed under its mapping.
    pub fn check(&self) -> Result<(), IndexError> {
        self.mapping.check().map_err(IndexError::io("read", self.path()))
    }
}

/// Finds and checks the header.
fn parse(bytes: &[u8], path: &Path) -> Result<IndexHeader, IndexError> {
    let refuse = |problem: &str| Err(IndexError::format(path, problem));
    let length = bytes.len() as u64;
    if length < ALIGNMENT + TRAILER_BYTES as u64 || !bytes.starts_with(MAGIC) {
        return refuse("it does not begin as one of this version");
    }
    let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
    let number = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&trailer[at..at + 8]);
        u64::from_le_bytes(eight)
    };
    let (start, header_bytes) = (number(0), number(8));
    let end = start.checked_add(header_bytes);
    if end != Some(body.len() as u64) || start < ALIGNMENT || header_bytes > HEADER_BYTES_MAX {
        return refuse("its trailer points elsewhere: the file was cut, or is another");
    }
    let text = &body[start as usize..];
    if Checksum::of(text).as_bytes()[..] != trailer[16..] {
        return Err(IndexError::Checksum { path: path.to_owned(), what: "its header".to_owned() });
    }
    let header: IndexHeader = serde_json::from_slice(text)
        .map_err(|error| IndexError::format(path, format!("its header: {error}")))?;
    if header.sections.len() > SECTIONS_MAX {
        return refuse("it has too many sections");
    }
    let mut free = ALIGNMENT;
    for section in &header.sections {
        let end = section.offset.checked_add(section.bytes);
        let fits = section.offset >= free
            && section.offset.is_multiple_of(ALIGNMENT)
            && end.is_some_and(|end| end <= start);
        if !fits {
            let problem = format!("section {:?} lies outside of it", section.name);
            return Err(IndexError::format(path, problem));
        }
        free = end.unwrap_or(u64::MAX);
    }
    if header.recall.is_some_and(|recall| !(0.0..=1.0).contains(&recall)) {
        return refuse("its recall is no share");
    }
    Ok(header)
}

/// An index in the making. Dropped before [`IndexWriter::finish`], nothing is left of it, and the index
/// that was there stays.
pub struct IndexWriter {
    files: Arc<dyn Files>,
    place: PathBuf,
    staged: PathBuf,
    header: IndexHeader,
    /// `None` when it is done, so that what is left goes and nothing else.
    write: Option<Box<dyn FileWrite>>,
    open: Option<(String, u64, Checksummer)>,
    _claim: Claim,
}

impl IndexWriter {
    /// Begins the index `name` of a vindex directory. The header's sections are filled in.
    ///
    /// # Errors
    /// `Busy`; `Io`.
    pub fn create(
        files: &Arc<dyn Files>,
        directory: &Path,
        name: &str,
        header: IndexHeader,
    ) -> Result<Self, IndexError> {
        let place = index_path(directory, name);
        let beside = |suffix: &str| directory.join(format!("{name}{INDEX_SUFFIX}{suffix}"));
        let (staged, lock) = (beside(".partial"), beside(".lock"));
        let claim = Claim::take(files, &lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => IndexError::Busy { path: place.clone() },
            _ => IndexError::io("lock", &place)(error),
        })?;
        let mut write = files.create(&staged).map_err(IndexError::io("create", &staged))?;
        let mut first = [0; ALIGNMENT as usize];
        first[..MAGIC.len()].copy_from_slice(MAGIC);
        write.write_all(&first).map_err(IndexError::io("write", &staged))?;
        let header = IndexHeader { sections: Vec::new(), ..header };
        let files = files.clone();
        Ok(Self { files, place, staged, header, write: Some(write), open: None, _claim: claim })
    }

    /// Ends the section before and begins one.
    ///
    /// # Errors
    /// `Io`.
    pub fn begin(&mut self, name: &str) -> Result<(), IndexError> {
        self.end();
        let position = self.position();
        let padding = position.next_multiple_of(ALIGNMENT) - position;
        self.put(&[0; ALIGNMENT as usize][..padding as usize])?;
        self.open = Some((name.to_owned(), self.position(), Checksummer::new()));
        Ok(())
    }

    /// Appends bytes to the section that was begun.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        if let Some((_, _, digest)) = &mut self.open {
            digest.update(bytes);
        }
        self.put(bytes)
    }

    /// A whole section.
    ///
    /// # Errors
    /// `Io`.
    pub fn section(&mut self, name: &str, bytes: &[u8]) -> Result<(), IndexError> {
        self.begin(name)?;
        self.write(bytes)
    }

    /// Says what was measured of it while it was made.
    pub fn set_recall(&mut self, recall: f64) {
        self.header.recall = Some(recall);
    }

    /// Makes the index durable in its place, instead of the one that was there.
    ///
    /// # Errors
    /// `Io`; the index that was there is then still there, whole.
    pub fn finish(mut self) -> Result<(), IndexError> {
        self.end();
        let start = self.position();
        let text = serde_json::to_vec(&self.header).expect("a header is plain data");
        self.put(&text)?;
        self.put(&start.to_le_bytes())?;
        self.put(&(text.len() as u64).to_le_bytes())?;
        self.put(Checksum::of(&text).as_bytes())?;
        let Self { files, place, staged, write, .. } = &mut self;
        if let Some(open) = write {
            open.sync().map_err(IndexError::io("sync", staged))?;
        }
        files.rename(staged, place).map_err(IndexError::io("move in", place))?;
        *write = None;
        let parent = parent_of(place);
        files.sync_dir(parent).map_err(IndexError::io("sync", parent))
    }

    fn end(&mut self) {
        let Some((name, offset, digest)) = self.open.take() else { return };
        let bytes = self.position() - offset;
        self.header.sections.push(SectionRecord { name, offset, bytes, sha256: digest.finish() });
    }

    fn position(&self) -> u64 {
        self.write.as_ref().map_or(0, |write| write.position())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        match &mut self.write {
            Some(write) => write.write_all(bytes).map_err(IndexError::io("write", &self.staged)),
            None => Ok(()),
        }
    }
}

impl Drop for IndexWriter {
    fn drop(&mut self) {
        if self.write.take().is_some() {
            // What cannot be removed is written over by the next.
            let _ = self.files.remove_file(&self.staged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::MemoryFiles;

    fn header() -> IndexHeader {
        IndexHeader {
            target: "targets".to_owned(),
            method: "postings".to_owned(),
            base_hash: "abc".to_owned(),
            made_from: "1".to_owned(),
            generator: "test".to_owned(),
            keys: 1,
            entries: 2,
            recall: None,
            sections: Vec::new(),
        }
    }

    fn written(files: &Arc<dyn Files>) -> PathBuf {
        files.create_dir_all(Path::new("/v")).unwrap();
        let mut writer = IndexWriter::create(files, Path::new("/v"), "one", header()).unwrap();
        writer.section("a", b"first").unwrap();
        writer.section("b", &[]).unwrap();
        writer.section("c", &[7; 200]).unwrap();
        writer.finish().unwrap();
        index_path(Path::new("/v"), "one")
    }

    fn replaced(
        files: &Arc<dyn Files>,
        path: &Path,
        bytes: &[u8],
    ) -> Result<IndexFile, IndexError> {
        let mut file = files.create(path).unwrap();
        file.write_all(bytes).unwrap();
        file.sync().unwrap();
        drop(file);
        IndexFile::open(files, path)
    }

    #[test]
    fn an_index_survives_the_disk_with_its_sections() {
        let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
        let path = written(&files);
        assert_eq!(index_names(&files, Path::new("/v")).unwrap(), ["one"]);
        let file = IndexFile::open(&files, &path).unwrap();
        assert_eq!(file.section(0).unwrap(), b"first");
        assert_eq!(file.section(1).unwrap(), b"");
        assert_eq!(file.section(2).unwrap(), [7; 200]);
        assert!(matches!(file.section(3), Err(IndexError::Format { .. })));
        remove_index(&files, Path::new("/v"), "one").unwrap();
        assert!(files.list(Path::new("/v")).unwrap().is_empty());
    }

    #[test]
    fn an_index_that_is_not_finished_leaves_the_old_one_and_nothing_else() {
        let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
        let path = written(&files);
        let before = files.read(&path, 1 << 20).unwrap();
        let mut writer = IndexWriter::create(&files, Path::new("/v"), "one", header()).unwrap();
        let second = IndexWriter::create(&files, Path::new("/v"), "one", header());
        assert!(matches!(second, Err(IndexError::Busy { .. })));
        writer.section("a", b"other").unwrap();
        drop(writer);
        assert_eq!(files.read(&path, 1 << 20).unwrap(), before);
        assert_eq!(files.list(Path::new("/v")).unwrap(), ["one.index"]);
    }

    #[test]
    fn no_byte_of_a_file_can_be_changed_or_cut_without_being_noticed() {
        let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
        let path = written(&files);
        let good = files.read(&path, 1 << 20).unwrap();
        let sections = IndexFile::open(&files, &path).unwrap().header().sections.clone();
        let in_use = |at: usize| {
            let at = at as u64;
            let within = |one: &SectionRecord| (one.offset..one.offset + one.bytes).contains(&at);
            at < MAGIC.len() as u64 || sections.iter().any(within) || at >= 328
        };
        for at in (0..good.len()).filter(|&at| in_use(at)) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            let sound = replaced(&files, &path, &bad)
                .and_then(|file| (0..3).try_for_each(|number| file.section(number).map(drop)));
            assert!(sound.is_err(), "byte {at}");
        }
        for length in 0..good.len() {
            assert!(replaced(&files, &path, &good[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn sections_that_lie_outside_or_over_one_another_are_refused() {
        let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
        let path = written(&files);
        let good = IndexFile::open(&files, &path).unwrap().header().clone();
        let spoilt: [fn(&mut IndexHeader); 5] = [
            |header| header.sections[0].offset = u64::MAX - 63,
            |header| header.sections[0].offset = 0,
            |header| header.sections[2].bytes = u64::MAX,
            |header| header.sections[2].offset = header.sections[0].offset,
            |header| header.recall = Some(1.5),
        ];
        for spoil in spoilt {
            let mut header = good.clone();
            spoil(&mut header);
            let mut bytes = files.read(&path, 1 << 20).unwrap()[..328].to_vec();
            let text = serde_json::to_vec(&header).unwrap();
            bytes.extend_from_slice(&text);
            bytes.extend_from_slice(&328_u64.to_le_bytes());
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(Checksum::of(&text).as_bytes());
            let other = Path::new("/v/two.index");
            let result = replaced(&files, other, &bytes);
            assert!(matches!(result, Err(IndexError::Format { .. })), "{header:?}");
        }
    }

    #[test]
    fn names_are_plain_words() {
        for good in ["a", "_x1", "targets"] {
            assert!(is_index_name(good), "{good}");
        }
        for bad in ["", "1a", "A", "a-b", "../a", "é", &"x".repeat(64)] {
            assert!(!is_index_name(bad), "{bad}");
        }
    }
}
