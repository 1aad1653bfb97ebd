//! The base hash: what the weights, configuration and tokenizer of a base are, in 32 bytes.
//!
//! SHA-256 over a fixed preamble, the type in which weights are stored, the digest of the
//! configuration, the digest of the tokenizer, and then for every tensor of the *source*, sorted by
//! name: the name, its type, its shape and the digest of its bytes. Labels, statistics, names, levels
//! and times have no part in it, so every level of one extraction has one hash, and the same weights
//! stored at another precision, which answer differently, have another.

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
    let checkpoint = source.checkpoint();
    let identity = source.identity()?;
    let mut hasher = BaseHasher::new(stored, &identity.config, &identity.tokenizer);
    let mut read = 0;
    for tensor in checkpoint.tensors() {
        let mut content = Sha256::new();
        for chunk in tensor.bytes.chunks(CHUNK_BYTES) {
            content.update(chunk);
            read += chunk.len() as u64;
            on_read(read)?;
        }
        hasher.tensor(tensor.name, tensor.format, tensor.shape, content.finalize().into());
    }
    Ok(hasher.finish())
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
