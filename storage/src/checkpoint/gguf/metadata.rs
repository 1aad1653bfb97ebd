//! The metadata of a GGUF file: typed values by key, in the file's order, read where they lie.
//!
//! [`GgufMetadata`] keeps the keys and where each value is; values are views. Arrays (a vocabulary has
//! hundreds of thousands of strings) are walked, never collected. Everything was checked at opening.
//! Should the file change under its mapping, values change with it, an array may end early, and
//! nothing panics; [`crate::checkpoint::Checkpoint::check`] tells.

use super::reader::{self, Cursor, MAGIC, VERSION};
use super::types::ValueType;
use crate::checkpoint::shorten;
use crate::file::Mapping;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes before the first metadata entry: magic, version, tensor count, metadata count.
pub(super) const HEADER_BYTES: usize = 4 + 4 + 8 + 8;

/// Where the bytes are.
enum Bytes {
    Mapped(Arc<dyn Mapping>),
    Owned(Vec<u8>),
}

/// Typed values by key, in the order of the file.
pub struct GgufMetadata {
    bytes: Bytes,
    version: u32,
    entries: Entries,
}

/// Entries with distinct keys.
pub(super) struct Entries {
    /// In the order of the file.
    list: Vec<Entry>,
    /// Positions in `list`, sorted by key.
    by_key: Vec<u32>,
}

impl Entries {
    /// Makes them ready to be looked up.
    ///
    /// # Errors
    /// When a key is given twice, or there are more than `u32::MAX`.
    pub(super) fn new(list: Vec<Entry>) -> Result<Self, String> {
        let count = u32::try_from(list.len())
            .map_err(|_| format!("it has {} metadata entries", list.len()))?;
        let mut by_key: Vec<u32> = (0..count).collect();
        let key = |&position: &u32| &*list[position as usize].key;
        by_key.sort_unstable_by(|a, b| key(a).cmp(key(b)));
        match by_key.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
            Some(twins) => Err(format!("it gives metadata {} twice", shorten(key(&twins[0])))),
            None => Ok(Self { list, by_key }),
        }
    }

    /// The entry of a key.
    pub(super) fn find(&self, key: &str) -> Option<&Entry> {
        let entry = |position: u32| &self.list[position as usize];
        let found =
            self.by_key.binary_search_by(|&position| (*entry(position).key).cmp(key)).ok()?;
        Some(entry(self.by_key[found]))
    }
}

/// One entry: its key, and where its value lies in the file, behind the number of its type.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) value_type: ValueType,
    pub(super) value: Range<usize>,
}

impl Entry {
    pub(super) fn value<'a>(&self, file: &'a [u8]) -> Value<'a> {
        Value::parse(self.value_type, &file[self.value.clone()])
    }
}

/// A metadata value has another type than the key asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata {key:?} is {found}, it should be {wanted}")]
pub struct MetadataTypeError {
    /// The key.
    pub key: String,
    /// What the value is, shortened.
    pub found: String,
    /// What was asked for.
    pub wanted: &'static str,
}

impl GgufMetadata {
    /// The metadata of a whole GGUF file in memory, tensors or none behind it.
    ///
    /// # Errors
    /// A sentence fragment saying what is wrong with the file, and where.
    pub fn from_file(bytes: Vec<u8>) -> Result<Self, String> {
        let parsed = reader::parse(&bytes)?;
        Ok(Self { bytes: Bytes::Owned(bytes), version: parsed.version, entries: parsed.entries })
    }

    /// The metadata of a mapped file, which was parsed into these entries.
    pub(super) fn mapped(mapping: Arc<dyn Mapping>, version: u32, entries: Entries) -> Self {
        Self { bytes: Bytes::Mapped(mapping), version, entries }
    }

    fn file(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(mapping) => mapping.bytes(),
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Version of the file that the metadata comes from: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.list.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.list.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.entries.find(key).map(|entry| entry.value(self.file()))
    }

    /// Key and value of every entry, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.entries.list.iter().map(|entry| (&*entry.key, entry.value(self.file())))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, MetadataTypeError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => {
                let (key, found) = (key.to_owned(), value.to_string());
                Err(MetadataTypeError { key, found, wanted })
            }
        }
    }

    /// A text.
    ///
    /// # Errors
    /// When the value is no string, or not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>, MetadataTypeError> {
        self.typed(key, "text", Value::as_text)
    }

    /// A number that counts something, stored as any integer type.
    ///
    /// # Errors
    /// When the value is no integer, or negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, MetadataTypeError> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// A number, stored as any number type.
    ///
    /// # Errors
    /// When the value is no number.
    pub fn f64(&self, key: &str) -> Result<Option<f64>, MetadataTypeError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A truth value.
    ///
    /// # Errors
    /// When the value is none.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, MetadataTypeError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// An array.
    ///
    /// # Errors
    /// When the value is none.
    pub fn array(&self, key: &str) -> Result<Option<Array<'_>>, MetadataTypeError> {
        self.typed(key, "an array", Value::as_array)
    }

    /// The entries as they lie in the file, without the header before them: what identifies them.
    pub fn encoded_entries(&self) -> &[u8] {
        let end = self.entries.list.last().map_or(HEADER_BYTES, |entry| entry.value.end);
        &self.file()[HEADER_BYTES..end]
    }

    /// A whole GGUF file with this metadata and no tensor, which [`GgufMetadata::from_file`] reads.
    pub fn to_file(&self) -> Vec<u8> {
        let entries = self.encoded_entries();
        let mut file = Vec::with_capacity(HEADER_BYTES + entries.len());
        file.extend_from_slice(&encode_header(0, self.len() as u64));
        file.extend_from_slice(entries);
        file
    }
}

/// The start of a file of the version that is written.
pub(in crate::checkpoint) fn encode_header(tensors: u64, entries: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&tensors.to_le_bytes());
    header[16..].copy_from_slice(&entries.to_le_bytes());
    header
}

impl fmt::Debug for GgufMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A metadata value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Bytes, because tokens of some vocabularies are not UTF-8.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// The first bytes as an array; zeros where there are too few, which a parsed value never has.
fn prefix<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

impl<'a> Value<'a> {
    /// The value that `bytes` hold, which were checked for this type.
    fn parse(value_type: ValueType, bytes: &'a [u8]) -> Self {
        match value_type {
            ValueType::U8 => Self::U8(u8::from_le_bytes(prefix(bytes))),
            ValueType::I8 => Self::I8(i8::from_le_bytes(prefix(bytes))),
            ValueType::U16 => Self::U16(u16::from_le_bytes(prefix(bytes))),
            ValueType::I16 => Self::I16(i16::from_le_bytes(prefix(bytes))),
            ValueType::U32 => Self::U32(u32::from_le_bytes(prefix(bytes))),
            ValueType::I32 => Self::I32(i32::from_le_bytes(prefix(bytes))),
            ValueType::F32 => Self::F32(f32::from_le_bytes(prefix(bytes))),
            ValueType::Bool => Self::Bool(prefix(bytes) != [0]),
            ValueType::String => Self::String(bytes.get(8..).unwrap_or_default()),
            ValueType::Array => Self::Array(Array::parse(bytes)),
            ValueType::U64 => Self::U64(u64::from_le_bytes(prefix(bytes))),
            ValueType::I64 => Self::I64(i64::from_le_bytes(prefix(bytes))),
            ValueType::F64 => Self::F64(f64::from_le_bytes(prefix(bytes))),
        }
    }

    /// What kind of value it is.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// Appends the value as it lies in a file, without the number of its type.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::U8(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::I8(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::U16(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::I16(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::U32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::I32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::F32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::Bool(value) => out.push(u8::from(value)),
            Self::String(value) => encode_string(value, out),
            Self::Array(value) => value.encode(out),
            Self::U64(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::I64(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::F64(value) => out.extend_from_slice(&value.to_le_bytes()),
        }
    }

    /// A string that is UTF-8.
    pub fn as_text(self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// A string, whatever its bytes.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        if let Self::String(bytes) = self { Some(bytes) } else { None }
    }

    /// An integer of any type that is not negative.
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::U64(value) => Some(value),
            other => u64::try_from(other.as_i64()?).ok(),
        }
    }

    /// An integer of any type that fits.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Self::U8(value) => Some(value.into()),
            Self::I8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U64(value) => i64::try_from(value).ok(),
            Self::I64(value) => Some(value),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// A number of any type; integers beyond 2^53 are rounded.
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::F32(value) => Some(value.into()),
            Self::F64(value) => Some(value),
            Self::U64(value) => Some(value as f64),
            other => other.as_i64().map(|value| value as f64),
        }
    }

    /// A truth value.
    pub fn as_bool(self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(value) } else { None }
    }

    /// An array.
    pub fn as_array(self) -> Option<Array<'a>> {
        if let Self::Array(array) = self { Some(array) } else { None }
    }
}

/// For messages: strings quoted and shortened, arrays by kind and length.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(bytes) => f.write_str(&shorten(&String::from_utf8_lossy(bytes))),
            Self::Array(array) => {
                write!(f, "an array of {} {:?}", array.len(), array.element_type())
            }
            Self::Bool(value) => write!(f, "{value}"),
            Self::U64(value) => write!(f, "{value}"),
            Self::F32(value) => write!(f, "{value}"),
            Self::F64(value) => write!(f, "{value}"),
            other => write!(f, "{}", other.as_i64().expect("an integer that fits")),
        }
    }
}

/// A string with its length before it.
pub(in crate::checkpoint) fn encode_string(string: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(string.len() as u64).to_le_bytes());
    out.extend_from_slice(string);
}

/// An array's elements, read where they lie.
#[derive(Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element: ValueType,
    count: usize,
    /// The elements, one after another.
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Bytes before the elements: the number of their type, and their count.
    const HEADER_BYTES: usize = 4 + 8;

    /// The array that `bytes` hold, which were checked.
    fn parse(bytes: &'a [u8]) -> Self {
        let element = ValueType::from_number(u32::from_le_bytes(prefix(bytes)));
        let count = u64::from_le_bytes(prefix(bytes.get(4..).unwrap_or_default()));
        let elements = bytes.get(Self::HEADER_BYTES..).unwrap_or_default();
        // Only a file that changed since it was checked has another count or no type.
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(elements.len());
        match element {
            Some(element) => Self { element, count, bytes: elements },
            None => Self { element: ValueType::U8, count: 0, bytes: &[] },
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.element.number().to_le_bytes());
        out.extend_from_slice(&(self.count as u64).to_le_bytes());
        out.extend_from_slice(self.bytes);
    }

    /// What the elements are.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (element, bytes) = (self.element, self.bytes);
        let mut cursor = Cursor::new(bytes);
        (0..self.count).map_while(move |_| {
            let range = cursor.skip_value(element, 0, "an array").ok()?;
            Some(Value::parse(element, &bytes[range]))
        })
    }

    /// The elements as `read` takes them, for example with [`Value::as_u64`].
    ///
    /// # Errors
    /// The position of the first element that it does not take.
    pub fn typed<T>(
        &self,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> impl Iterator<Item = Result<T, usize>> {
        self.iter().enumerate().map(move |(position, value)| read(value).ok_or(position))
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} x {}", self.element, self.count)
    }
}
