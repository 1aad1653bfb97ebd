//! The chain: every token's residual stream, layer by layer.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::TraceFileError;
use super::header::{Bytes, HeaderBytes, NUMBER_BYTES, at_least_one};
use super::writer::VectorWriter;
use crate::file::{Files, Mapping};
use crate::vindex::Checksum;

/// First bytes of the file.
pub(super) const MAGIC: [u8; 4] = *b"TRAC";
const HEADER_BYTES: u64 = 64;
/// Where the base stands, in bytes that the ancestor reserves.
const BASE_PLACE: usize = 20;
/// Vectors of a node.
const VECTORS: u64 = 3;

/// What a chain holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHeader {
    /// Numbers in a vector.
    pub hidden: u32,
    /// Layers of the model; a token has one node more, for the embedding.
    pub layers: u32,
    /// Tokens.
    pub tokens: u32,
    /// The base of the model, where the file names it.
    pub base: Option<Checksum>,
}

impl ChainHeader {
    fn nodes(&self) -> u64 {
        u64::from(self.layers) + 1
    }

    /// Bytes of one token's vectors. Layers and numbers have 32 bits each, so it may be too many.
    fn token_bytes(&self) -> Option<u64> {
        (self.nodes() * VECTORS).checked_mul(u64::from(self.hidden) * NUMBER_BYTES)
    }

    /// Bytes of all vectors.
    fn bytes(&self) -> Option<u64> {
        self.token_bytes()?.checked_mul(self.tokens.into())
    }
}

/// One token at one place between layers. The first node of a token is the embedding, whose `attention`
/// and `network` are zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// The stream: `[hidden]`.
    pub residual: Vec<f32>,
    /// What attention added: `[hidden]`.
    pub attention: Vec<f32>,
    /// What the rest of the layer changed: `[hidden]`. The stream before plus both is the stream after.
    pub network: Vec<f32>,
}

/// A mapped chain.
#[derive(Debug)]
pub struct TraceChain {
    bytes: Bytes,
    header: ChainHeader,
}

impl TraceChain {
    /// Checks a mapped file: header and length.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(mapping: Arc<dyn Mapping>) -> Result<Self, TraceFileError> {
        let bytes = Bytes::with_header(mapping, MAGIC, HEADER_BYTES)?;
        let header = ChainHeader {
            hidden: at_least_one("the size of a vector", bytes.u32(8))?,
            layers: at_least_one("the number of layers", bytes.u32(12))?,
            tokens: bytes.u32(16),
            base: bytes.base(BASE_PLACE as u64),
        };
        let end = header.bytes().and_then(|bytes| bytes.checked_add(HEADER_BYTES));
        bytes.require("its nodes", end)?;
        match bytes.len() - end.unwrap_or_default() {
            0 => Ok(Self { bytes, header }),
            surplus => Err(TraceFileError::TrailingBytes { surplus }),
        }
    }

    /// What it holds.
    pub fn header(&self) -> &ChainHeader {
        &self.header
    }

    /// Reads a node into `node`: 0 is the embedding, `1 + layer` what left that layer. False where there
    /// is none.
    pub fn read(&self, token: u32, node: u32, into: &mut Node) -> bool {
        let ChainHeader { hidden, tokens, .. } = self.header;
        if token >= tokens || u64::from(node) >= self.header.nodes() {
            return false;
        }
        let vector = u64::from(hidden) * NUMBER_BYTES;
        let index = u64::from(token) * self.header.nodes() + u64::from(node);
        let place = HEADER_BYTES + index * VECTORS * vector;
        self.bytes.vector(place, hidden, &mut into.residual);
        self.bytes.vector(place + vector, hidden, &mut into.attention);
        self.bytes.vector(place + 2 * vector, hidden, &mut into.network);
        true
    }

    /// As [`Mapping::check`].
    ///
    /// # Errors
    /// When the file was truncated under the mapping.
    pub fn check(&self) -> io::Result<()> {
        self.bytes.0.check()
    }
}

/// Writes a chain: each token's nodes, embedding first, token by token.
#[derive(Debug)]
pub struct ChainWriter(VectorWriter);

impl ChainWriter {
    /// Begins a file that is not there yet.
    ///
    /// # Errors
    /// `Exists`, `Busy`, `TooLarge`; `Io`.
    pub fn create(
        files: &Arc<dyn Files>,
        path: &Path,
        header: &ChainHeader,
    ) -> Result<Self, TraceFileError> {
        let max = header.token_bytes().map_or(0, |bytes| u64::MAX / bytes.max(1));
        let numbers = header.bytes().map(|bytes| bytes / NUMBER_BYTES);
        let numbers = numbers.ok_or(TraceFileError::TooLarge {
            what: "the number of tokens",
            count: header.tokens.into(),
            max,
        })?;
        let mut bytes = HeaderBytes::<{ HEADER_BYTES as usize }>::new(MAGIC);
        bytes.numbers(8, &[header.hidden, header.layers, header.tokens]);
        bytes.base(BASE_PLACE, header.base);
        VectorWriter::create(files, path, &[&bytes.0], numbers).map(Self)
    }

    /// Appends a node.
    ///
    /// # Errors
    /// `Incomplete` for one more than announced; `Io`.
    pub fn node(
        &mut self,
        residual: &[f32],
        attention: &[f32],
        network: &[f32],
    ) -> Result<(), TraceFileError> {
        [residual, attention, network].into_iter().try_for_each(|row| self.0.vector(row))
    }

    /// Makes the file durable and returns its length.
    ///
    /// # Errors
    /// `Incomplete`, `Exists`; `Io`.
    pub fn finish(self) -> Result<u64, TraceFileError> {
        self.0.finish()
    }
}
