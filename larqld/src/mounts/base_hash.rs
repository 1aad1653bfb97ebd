//! The base hash: what the weights, configuration and tokenizer of a base are, in 32 bytes.
//!
//! SHA-256 over a fixed preamble, the type in which weights are stored, the digest of the
//! configuration, the digest of the tokenizer, and then for every tensor of the *source*, sorted by
//! name: the name, its type, its shape and the digest of its bytes. Labels, statistics, names, levels
//! and times have no part in it, so every level of one extraction has one hash, and the same weights
//! stored at another precision, which answer differently, have another.

use std::cmp::Reverse;
use std::ops::Range;

use larql_compute::cpu::Pool;
use larql_storage::checkpoint::Tensor;
use larql_storage::vindex::{Checksum, Checksummer, SourceFile};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;
use crate::source::SourceModel;

/// Collects what the hash covers, tensors in the order of their names.
#[derive(Debug)]
pub struct BaseHasher {
    digest: Sha256,
    last: Option<String>,
}

impl BaseHasher {
    /// Begins with everything but tensors. `stored` is `source`, `f16` or `f32`.
    pub fn new(stored: &str, config: &[u8], tokenizer: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(b"larql base 1\n");
        field(&mut digest, stored.as_bytes());
        digest.update(Sha256::digest(config));
        digest.update(Sha256::digest(tokenizer));
        Self { digest, last: None }
    }

    /// Adds a tensor of the source; `content` is the SHA-256 of its bytes.
    ///
    /// # Panics
    /// If tensors do not come sorted by name, which would make the hash depend on their order.
    pub fn tensor(&mut self, name: &str, format: &str, shape: &[usize], content: [u8; 32]) {
        assert!(self.last.as_deref().is_none_or(|last| last < name), "{name} out of order");
        self.last = Some(name.to_owned());
        field(&mut self.digest, name.as_bytes());
        field(&mut self.digest, format.as_bytes());
        self.digest.update((shape.len() as u64).to_le_bytes());
        for &size in shape {
            self.digest.update((size as u64).to_le_bytes());
        }
        self.digest.update(content);
    }

    /// The hash in hexadecimal.
    pub fn finish(self) -> String {
        hexadecimal(&self.digest.finalize())
    }
}

/// Bytes that are hashed between two looks at whether to go on.
const CHUNK_BYTES: usize = 8 << 20;

/// The base hash of a checkpoint that is used as it is, or is stored as `stored`. Reads every byte and
/// tells `on_read` how many so far; what that returns as an error ends the reading.
///
/// # Errors
/// When a side file cannot be read; what `on_read` says.
pub fn checkpoint_base_hash(
    source: &SourceModel,
    stored: &str,
    on_read: &mut dyn FnMut(u64) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let mut read = 0;
    base_hash(source, stored, |_, tensor| {
        let mut content = Sha256::new();
        for chunk in tensor.bytes.chunks(CHUNK_BYTES) {
            content.update(chunk);
            read += chunk.len() as u64;
            on_read(read)?;
        }
        Ok(content.finalize().into())
    })
}

/// The base hash as [`checkpoint_base_hash`] has it, and the checksum of each file of weights, from
/// one reading of the files: both are taken from the same bytes, beside each other on the pool.
///
/// # Errors
/// As [`checkpoint_base_hash`].
pub fn checkpoint_hashes(
    source: &SourceModel,
    stored: &str,
    pool: &Pool,
    on_read: &mut dyn FnMut(u64) -> Result<(), Failure>,
) -> Result<(String, Vec<SourceFile>), Failure> {
    let checkpoint = source.checkpoint();
    let files: Vec<_> = checkpoint.weight_files().collect();
    let mut of_files: Vec<_> =
        files.iter().enumerate().map(|(file, (_, bytes))| Digest::new(file, 0, bytes)).collect();
    let place = |position| checkpoint.place(position);
    let mut of_tensors: Vec<_> = (checkpoint.tensors().enumerate())
        .map(|(position, tensor)| {
            Digest::new(place(position).0, place(position).1.start, tensor.bytes)
        })
        .collect();
    // A file and its tensors keep two threads busy.
    let beside = (pool.threads() / 2).max(1);
    let mut read = 0;
    for first in (0..files.len()).step_by(beside) {
        let group = first..files.len().min(first + beside);
        let longest = files[group.clone()].iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
        let all = of_files.iter_mut().chain(&mut of_tensors);
        let mut of_group: Vec<_> = all.filter(|digest| group.contains(&digest.file)).collect();
        for start in (0..longest).step_by(CHUNK_BYTES) {
            let window = start..start.saturating_add(CHUNK_BYTES);
            let mut met: Vec<_> =
                of_group.iter_mut().filter(|digest| !digest.part(&window).is_empty()).collect();
            // The longest parts, whole files' among them, are begun first.
            met.sort_by_key(|digest| Reverse(digest.part(&window).len()));
            pool.run_chunks(&mut met, 1, &|_, digests| digests[0].take(&window));
            let within = files[group.clone()].iter().map(|(_, bytes)| bytes.len().min(window.end));
            read += within.map(|end| end.saturating_sub(window.start) as u64).sum::<u64>();
            on_read(read)?;
        }
    }
    let base_hash =
        base_hash(source, stored, |position, _| Ok(*of_tensors[position].finish().as_bytes()))?;
    let named = files.iter().zip(&of_files);
    let named = named.map(|((name, _), digest)| SourceFile {
        name: (*name).to_owned(),
        sha256: digest.finish(),
    });
    Ok((base_hash, named.collect()))
}

/// Puts a base hash together; `content` gives the SHA-256 of the tensor at a position.
fn base_hash(
    source: &SourceModel,
    stored: &str,
    mut content: impl FnMut(usize, &Tensor<'_>) -> Result<[u8; 32], Failure>,
) -> Result<String, Failure> {
    let identity = source.identity()?;
    let mut hasher = BaseHasher::new(stored, &identity.config, &identity.tokenizer);
    for (position, tensor) in source.checkpoint().tensors().enumerate() {
        let content = content(position, &tensor)?;
        hasher.tensor(tensor.name, tensor.format, tensor.shape, content);
    }
    Ok(hasher.finish())
}

/// A digest of bytes of a file, fed window by window.
struct Digest<'a> {
    file: usize,
    /// Where the bytes begin in the file.
    start: usize,
    bytes: &'a [u8],
    state: Checksummer,
}

impl<'a> Digest<'a> {
    fn new(file: usize, start: usize, bytes: &'a [u8]) -> Self {
        Self { file, start, bytes, state: Checksummer::new() }
    }

    /// What lies in a window of the file.
    fn part(&self, window: &Range<usize>) -> &'a [u8] {
        let at = |place: usize| place.saturating_sub(self.start).min(self.bytes.len());
        &self.bytes[at(window.start)..at(window.end)]
    }

    fn take(&mut self, window: &Range<usize>) {
        self.state.update(self.part(window));
    }

    fn finish(&self) -> Checksum {
        self.state.clone().finish()
    }
}

fn field(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(stored: &str, tensors: &[(&str, &str, &[usize], &[u8])]) -> String {
        let mut hasher = BaseHasher::new(stored, b"{}", b"t");
        for (name, format, shape, bytes) in tensors {
            hasher.tensor(name, format, shape, Sha256::digest(bytes).into());
        }
        hasher.finish()
    }

    #[test]
    fn every_part_of_a_tensor_changes_the_hash() {
        let base = hash("f16", &[("a", "F32", &[1, 2], b"12345678")]);
        for other in [
            hash("f32", &[("a", "F32", &[1, 2], b"12345678")]),
            hash("f16", &[("b", "F32", &[1, 2], b"12345678")]),
            hash("f16", &[("a", "BF16", &[1, 2], b"12345678")]),
            hash("f16", &[("a", "F32", &[2, 1], b"12345678")]),
            hash("f16", &[("a", "F32", &[1, 2], b"12345679")]),
            hash("f16", &[]),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base.len(), 64);
    }
}
