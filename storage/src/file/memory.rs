//! Files that live in memory, for tests and for whole clusters in one thread.

use super::mmap::{changed_length, not_regular, require_within, shorter_than_resumed};
use super::{FileKind, FileLock, FileOverwrite, FileWrite, Files, Mapping, Metadata};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A tree of files in memory; clones share it. The root and the working directory exist.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles {
    tree: Arc<Mutex<Tree>>,
}

type Content = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Default)]
struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    locks: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone)]
enum Node {
    Directory,
    File(Content),
}

impl MemoryFiles {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty tree as the rest of storage takes it.
    pub fn shared() -> Arc<dyn Files> {
        Arc::new(Self::new())
    }

    /// Puts a whole file there, directories above it included: a test's short cut.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut tree = self.tree.lock();
        let path = normalize(path);
        for above in path.ancestors().skip(1).filter(|above| !is_root(above)) {
            tree.nodes.entry(above.to_path_buf()).or_insert(Node::Directory);
        }
        match tree.nodes.get(&path) {
            Some(Node::File(content)) => *content.lock() = bytes.to_vec(),
            _ => _ = tree.nodes.insert(path, Node::File(Arc::new(Mutex::new(bytes.to_vec())))),
        }
    }
}

/// Without `.`; `..` has no meaning here and is kept, so that it finds nothing.
fn normalize(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.parent().is_none()
}

impl Tree {
    fn file(&self, path: &Path) -> io::Result<Content> {
        match self.nodes.get(&normalize(path)) {
            Some(Node::File(content)) => Ok(content.clone()),
            Some(Node::Directory) => Err(not_regular(path, "a directory")),
            None if is_root(&normalize(path)) => Err(not_regular(path, "a directory")),
            None => Err(self.missing(path)),
        }
    }

    fn missing(&self, path: &Path) -> io::Error {
        let path = normalize(path);
        let above = path.ancestors().skip(1).find_map(|above| self.nodes.get(above));
        match above {
            Some(Node::File(_)) => io::ErrorKind::NotADirectory.into(),
            _ => io::ErrorKind::NotFound.into(),
        }
    }

    fn require_directory(&self, path: &Path) -> io::Result<()> {
        match self.nodes.get(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None if is_root(path) => Ok(()),
            None => Err(self.missing(path)),
        }
    }

    fn require_parent(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.require_directory(parent))
    }

    fn has_children(&self, path: &Path) -> bool {
        self.nodes.keys().any(|other| other.parent() == Some(path))
    }

    /// Takes out a node and everything below it, with paths relative to it.
    fn detach(&mut self, path: &Path) -> Vec<(PathBuf, Node)> {
        let below: Vec<_> =
            self.nodes.keys().filter(|other| other.starts_with(path)).cloned().collect();
        let taken = below.into_iter().filter_map(|old| {
            let node = self.nodes.remove(&old)?;
            Some((old.strip_prefix(path).expect("it starts so").to_path_buf(), node))
        });
        taken.collect()
    }

    fn attach(&mut self, path: &Path, nodes: Vec<(PathBuf, Node)>) {
        for (relative, node) in nodes {
            let whole =
                if relative.as_os_str().is_empty() { path.into() } else { path.join(relative) };
            self.nodes.insert(whole, node);
        }
    }
}

impl Files for MemoryFiles {
    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapping>> {
        let content = self.tree.lock().file(path)?;
        let mapped = AlignedBytes::copy_of(&content.lock());
        Ok(Arc::new(MemoryMapping { path: path.to_path_buf(), mapped, content }))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let content = self.tree.lock().file(path)?;
        let content = content.lock();
        if content.len() as u64 > bytes_max {
            let text =
                format!("{} is larger than the {bytes_max} bytes allowed here", path.display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(content.clone())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let mut tree = self.tree.lock();
        let path = normalize(path);
        tree.require_parent(&path)?;
        if tree.require_directory(&path).is_ok() {
            return Err(not_regular(&path, "a directory"));
        }
        let node = tree.nodes.entry(path).or_insert_with(|| Node::File(Content::default()));
        let Node::File(content) = node else { unreachable!("a directory was refused above") };
        content.lock().clear();
        Ok(Box::new(MemoryWrite { content: content.clone() }))
    }

    fn resume(&self, path: &Path, length: u64) -> io::Result<Box<dyn FileWrite>> {
        let content = self.tree.lock().file(path)?;
        let found = content.lock().len() as u64;
        if found < length {
            return Err(shorter_than_resumed(path, found, length));
        }
        content.lock().truncate(length as usize);
        Ok(Box::new(MemoryWrite { content }))
    }

    fn overwrite(&self, path: &Path) -> io::Result<Box<dyn FileOverwrite>> {
        Ok(Box::new(MemoryWrite { content: self.tree.lock().file(path)? }))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let tree = self.tree.lock();
        match tree.nodes.get(&normalize(path)) {
            Some(Node::File(content)) => {
                Ok(Metadata { length: content.lock().len() as u64, kind: FileKind::File })
            }
            _ => {
                tree.require_directory(&normalize(path))?;
                Ok(Metadata { length: 0, kind: FileKind::Directory })
            }
        }
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.metadata(path)?;
        Ok(Path::new("/").join(normalize(path)))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let (tree, directory) = (self.tree.lock(), normalize(directory));
        tree.require_directory(&directory)?;
        let children = tree.nodes.keys().filter(|path| path.parent() == Some(&directory));
        let mut names: Vec<_> =
            children.filter_map(|path| path.file_name()).map(OsString::from).collect();
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let path = normalize(path);
        for above in path.ancestors().filter(|above| !is_root(above)) {
            if matches!(tree.nodes.get(above), Some(Node::File(_))) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
        }
        for above in path.ancestors().filter(|above| !is_root(above)) {
            tree.nodes.insert(above.to_path_buf(), Node::Directory);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let (from, to) = (normalize(from), normalize(to));
        tree.require_parent(&to)?;
        let Some(source) = tree.nodes.get(&from) else { return Err(tree.missing(&from)) };
        if from == to {
            return Ok(());
        }
        if to.starts_with(&from) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match (source, tree.nodes.get(&to)) {
            (Node::Directory, Some(Node::File(_))) => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            (Node::File(_), Some(Node::Directory)) => {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            (Node::Directory, Some(Node::Directory)) if tree.has_children(&to) => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        let moved = tree.detach(&from);
        tree.attach(&to, moved);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let content = tree.file(from)?;
        let to = normalize(to);
        tree.require_parent(&to)?;
        if tree.nodes.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        tree.nodes.insert(to, Node::File(content));
        Ok(())
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        let (a, b) = (normalize(a), normalize(b));
        for path in [&a, &b] {
            if !tree.nodes.contains_key(path) {
                return Err(tree.missing(path));
            }
        }
        if a.starts_with(&b) || b.starts_with(&a) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (was_a, was_b) = (tree.detach(&a), tree.detach(&b));
        tree.attach(&b, was_a);
        tree.attach(&a, was_b);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.tree.lock();
        tree.file(path)?;
        tree.nodes.remove(&normalize(path));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let (mut tree, path) = (self.tree.lock(), normalize(path));
        tree.require_directory(&path)?;
        tree.detach(&path);
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.tree.lock().require_directory(&normalize(directory))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let mut tree = self.tree.lock();
        let normal = normalize(path);
        tree.require_parent(&normal)?;
        if matches!(tree.nodes.get(&normal), Some(Node::Directory)) {
            return Err(not_regular(path, "a directory"));
        }
        if !tree.locks.insert(normal.clone()) {
            let text = format!("{} is locked by somebody else", path.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        tree.nodes.entry(normal.clone()).or_insert_with(|| Node::File(Content::default()));
        Ok(Box::new(MemoryLock { tree: self.tree.clone(), path: normal }))
    }
}

#[derive(Debug)]
struct MemoryLock {
    tree: Arc<Mutex<Tree>>,
    path: PathBuf,
}

impl FileLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.tree.lock().locks.remove(&self.path);
    }
}

struct MemoryWrite {
    content: Content,
}

impl Write for MemoryWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.content.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileWrite for MemoryWrite {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn position(&self) -> u64 {
        self.content.lock().len() as u64
    }
}

impl FileOverwrite for MemoryWrite {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.content.lock();
        require_within(offset, bytes.len(), content.len() as u64)?;
        content[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct CacheLine([u8; 64]);

/// Bytes that start at a cache line, as pages do.
struct AlignedBytes {
    lines: Box<[CacheLine]>,
    length: usize,
}

impl AlignedBytes {
    fn copy_of(bytes: &[u8]) -> Self {
        let mut lines = vec![CacheLine([0; 64]); bytes.len().div_ceil(64)].into_boxed_slice();
        for (line, chunk) in lines.iter_mut().zip(bytes.chunks(64)) {
            line.0[..chunk.len()].copy_from_slice(chunk);
        }
        Self { lines, length: bytes.len() }
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: a `CacheLine` is 64 initialised bytes without padding, the lines are contiguous,
        // and `length` is at most 64 bytes a line.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

struct MemoryMapping {
    path: PathBuf,
    mapped: AlignedBytes,
    content: Content,
}

impl Mapping for MemoryMapping {
    fn bytes(&self) -> &[u8] {
        self.mapped.as_slice()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn check(&self) -> io::Result<()> {
        let (mapped, found) = (self.mapped.length as u64, self.content.lock().len() as u64);
        if found == mapped { Ok(()) } else { Err(changed_length(&self.path, mapped, Some(found))) }
    }

    fn will_need(&self, _: Range<usize>) {}
}

impl std::fmt::Debug for MemoryMapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryMapping").field("path", &self.path).finish_non_exhaustive()
    }
}
