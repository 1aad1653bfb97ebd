//! From front to back through a GGUF file: header, metadata, tensors.
//!
//! A count is compared with the bytes that are left before anything is made of it, and what is kept
//! for an entry is a small multiple of the bytes that the entry takes, so that the memory of parsing
//! is bounded by the file.

use super::metadata::{Entries, Entry};
use super::types::{ElementType, ValueType};
use crate::checkpoint::{Found, shorten};
use std::fmt::Display;
use std::ops::Range;

/// The letters at the start of a file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written.
pub(super) const VERSION: u32 = 3;
/// Where the data starts and each tensor in it, unless `general.alignment` says otherwise.
pub(in crate::checkpoint) const ALIGNMENT_DEFAULT: u64 = 32;
/// Key of the alignment.
pub(in crate::checkpoint) const ALIGNMENT_KEY: &str = "general.alignment";
/// Largest alignment that is believed.
pub(super) const ALIGNMENT_MAX: u64 = 1 << 20;
/// Most dimensions of a tensor, as in ggml.
pub(in crate::checkpoint) const DIMENSIONS_MAX: usize = 4;

/// Longest metadata key, as the format's description has it.
const KEY_BYTES_MAX: usize = 65_535;
/// Longest tensor name. ggml's own limit is 63; published checkpoints have longer ones.
const NAME_BYTES_MAX: usize = 1_024;
/// Arrays in arrays, at most.
const ARRAY_DEPTH_MAX: usize = 4;
/// The least that a metadata entry takes: key length, one letter, type, one byte.
const ENTRY_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
/// The least that a tensor's description takes: name length, one letter, dimension count, type,
/// offset.
const TENSOR_BYTES_MIN: u64 = 8 + 1 + 4 + 4 + 8;

/// A whole file's description.
pub(super) struct Parsed {
    pub(super) version: u32,
    pub(super) entries: Entries,
    /// In the order of the data; ranges lie inside the file and do not overlap.
    pub(super) tensors: Vec<Found>,
}

/// Reads the description of the whole file `bytes`.
///
/// # Errors
/// A sentence fragment saying what is wrong with the file, and where.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let mut cursor = Cursor::new(bytes);
    let magic = cursor.array::<4>("its magic")?;
    if magic != MAGIC {
        return Err(format!("it starts with {magic:02x?}, which is not GGUF"));
    }
    let version = cursor.u32("its version")?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => {
            return Err("it is big-endian, little-endian files are read".to_owned());
        }
        _ => return Err(format!("its version is {version}, versions 2 and 3 are read")),
    }
    let tensor_count = cursor.u64("its tensor count")?;
    let entry_count = cursor.u64("its metadata count")?;
    cursor.require(entry_count, ENTRY_BYTES_MIN, "metadata entries")?;
    let mut entries = Vec::new();
    for number in 0..entry_count {
        entries.push(entry(&mut cursor, number)?);
    }
    let entries = Entries::new(entries)?;
    let alignment = alignment(bytes, &entries)?;
    cursor.require(tensor_count, TENSOR_BYTES_MIN, "tensors")?;
    let mut tensors = Vec::new();
    for number in 0..tensor_count {
        tensors.push(tensor(&mut cursor, number, alignment)?);
    }
    let data_start = (cursor.position as u64).next_multiple_of(alignment);
    let tensors = place(tensors, data_start, bytes.len() as u64)?;
    Ok(Parsed { version, entries, tensors })
}

/// Reads one metadata entry.
fn entry(cursor: &mut Cursor<'_>, number: u64) -> Result<Entry, String> {
    let at = cursor.position;
    let key = cursor.string(&format_args!("the key of metadata entry {number}"))?;
    let key = std::str::from_utf8(key)
        .map_err(|_| format!("the key of metadata entry {number} at byte {at} is not UTF-8"))?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let length = key.len();
        return Err(format!("the key of metadata entry {number} at byte {at} has {length} bytes"));
    }
    let what = format_args!("the value of {}", shorten(key)).to_string();
    let value_type = cursor.value_type(&what)?;
    let start = cursor.position;
    cursor.skip_value(value_type, 0, &what)?;
    Ok(Entry { key: key.into(), value_type, value: start..cursor.position })
}

/// The alignment that the metadata asks for.
fn alignment(bytes: &[u8], entries: &Entries) -> Result<u64, String> {
    let Some(entry) = entries.find(ALIGNMENT_KEY) else {
        return Ok(ALIGNMENT_DEFAULT);
    };
    match entry.value(bytes).as_u64() {
        Some(found) if found.is_power_of_two() && found <= ALIGNMENT_MAX => Ok(found),
        Some(found) => {
            Err(format!("its {ALIGNMENT_KEY} is {found}, not a power of two up to {ALIGNMENT_MAX}"))
        }
        None => Err(format!("its {ALIGNMENT_KEY} is not a number")),
    }
}

/// A tensor's description; where it lies is not yet compared with the file.
struct Described {
    name: String,
    element_type: &'static ElementType,
    shape: Vec<u64>,
    /// From the start of the data.
    offset: u64,
    bytes: u64,
}

/// Reads the description of one tensor.
fn tensor(cursor: &mut Cursor<'_>, number: u64, alignment: u64) -> Result<Described, String> {
    let at = cursor.position;
    let name = cursor.string(&format_args!("the name of tensor {number}"))?;
    let name = check_name(name)
        .map_err(|problem| format!("the name of tensor {number} at byte {at} {problem}"))?;
    let refuse = |problem: String| format!("tensor {}: {problem}", shorten(name));
    let what = || format!("the description of tensor {}", shorten(name));
    let dimensions = cursor.u32(&what())? as usize;
    if dimensions > DIMENSIONS_MAX {
        return Err(refuse(format!("{dimensions} dimensions, the most is {DIMENSIONS_MAX}")));
    }
    let mut shape = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        shape.push(cursor.u64(&what())?);
    }
    // ggml counts from the innermost dimension, we from the outermost.
    shape.reverse();
    let type_number = cursor.u32(&what())?;
    let element_type = ElementType::from_number(type_number)
        .ok_or_else(|| refuse(format!("element type {} is not known", type_number as i32)))?;
    let bytes = element_type.bytes(&shape).map_err(refuse)?;
    let offset = cursor.u64(&what())?;
    if !offset.is_multiple_of(alignment) {
        return Err(refuse(format!("offset {offset} is not a multiple of {alignment}")));
    }
    Ok(Described { name: name.to_owned(), element_type, shape, offset, bytes })
}

/// A name that could not be mistaken for a path, break a line or fill a screen.
fn check_name(name: &[u8]) -> Result<&str, String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("has {} bytes, 1 to {NAME_BYTES_MAX} are read", name.len()));
    }
    let name = std::str::from_utf8(name).map_err(|_| "is not UTF-8".to_owned())?;
    if name.chars().any(char::is_control) {
        return Err(format!("is {}, which has control characters", shorten(name)));
    }
    if name.starts_with('/') || name.split(['/', '\\']).any(|part| part == "..") {
        return Err(format!("is {}, which is a path", shorten(name)));
    }
    Ok(name)
}

/// Compares the tensors with each other and with the file of `length` bytes.
fn place(mut tensors: Vec<Described>, data_start: u64, length: u64) -> Result<Vec<Found>, String> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(twins) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(format!("it describes tensor {} twice", shorten(&twins[0].name)));
    }
    // Of tensors that start together, at most the last may take bytes.
    tensors.sort_by_key(|tensor| (tensor.offset, tensor.bytes));
    let mut free_from = 0;
    let mut found = Vec::with_capacity(tensors.len());
    for Described { name, element_type, shape, offset, bytes } in tensors {
        let refuse = |problem: String| Err(format!("tensor {}: {problem}", shorten(&name)));
        let start = data_start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(bytes)).filter(|&end| end <= length);
        let (Some(start), Some(end)) = (start, end) else {
            return refuse(format!(
                "{bytes} bytes at offset {offset} of the data, which starts at byte {data_start}, \
                 reach beyond the file's {length}"
            ));
        };
        if offset < free_from {
            return refuse(format!(
                "offset {offset} overlaps the tensor before, which ends at {free_from}"
            ));
        }
        free_from = offset + bytes;
        let shape = shape.iter().map(|&size| usize::try_from(size)).collect::<Result<_, _>>();
        let Ok(shape) = shape else {
            return refuse("a dimension does not fit this machine".to_owned());
        };
        // The file is mapped, so its positions are of this machine's size.
        let range = start as usize..end as usize;
        found.push(Found { name, format: element_type.name.into(), shape, range });
    }
    Ok(found)
}

/// Reads little-endian numbers, strings and values from front to back.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn left(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    /// Refuses a count of things of at least `bytes_min` bytes that cannot all be there.
    fn require(&self, count: u64, bytes_min: u64, things: &str) -> Result<(), String> {
        let most = self.left() / bytes_min;
        if count > most {
            let (left, at) = (self.left(), self.position);
            return Err(format!(
                "it claims {count} {things}, the {left} bytes from byte {at} on hold at most {most}"
            ));
        }
        Ok(())
    }

    /// The next `count` bytes.
    fn take(&mut self, count: u64, what: &dyn Display) -> Result<&'a [u8], String> {
        let (start, left) = (self.position, self.left());
        if count > left {
            return Err(format!(
                "it ends inside {what}: {count} bytes are wanted at byte {start}, {left} are left"
            ));
        }
        self.position += count as usize;
        Ok(&self.bytes[start..self.position])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let taken = self.take(N as u64, &what)?;
        Ok(taken.try_into().expect("as many bytes as were asked for"))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string: its length, then its bytes.
    pub(super) fn string(&mut self, what: &dyn Display) -> Result<&'a [u8], String> {
        let length = self.take(8, what)?;
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        self.take(length, what)
    }

    /// The number of a value's type.
    pub(super) fn value_type(&mut self, what: &str) -> Result<ValueType, String> {
        let number = self.u32(what)?;
        ValueType::from_number(number)
            .ok_or_else(|| format!("{what} has type {}, which is not known", number as i32))
    }

    /// Steps over a value after checking it, and returns its bytes.
    pub(super) fn skip_value(
        &mut self,
        value_type: ValueType,
        depth: usize,
        what: &str,
    ) -> Result<Range<usize>, String> {
        let start = self.position;
        match value_type {
            ValueType::String => _ = self.string(&what)?,
            ValueType::Array => self.skip_array(depth, what)?,
            ValueType::Bool => check_bools(self.take(1, &what)?, what)?,
            fixed => _ = self.take(fixed.bytes().expect("the others vary"), &what)?,
        }
        Ok(start..self.position)
    }

    fn skip_array(&mut self, depth: usize, what: &str) -> Result<(), String> {
        if depth == ARRAY_DEPTH_MAX {
            return Err(format!("{what} nests arrays more than {ARRAY_DEPTH_MAX} deep"));
        }
        let element = self.value_type(what)?;
        let count = self.u64(what)?;
        match element.bytes() {
            Some(bytes) => {
                self.require(count, bytes, &format!("elements in {what}"))?;
                let elements = self.take(count * bytes, &what)?;
                if element == ValueType::Bool {
                    check_bools(elements, what)?;
                }
            }
            None => {
                let bytes_min = if element == ValueType::String { 8 } else { 12 };
                self.require(count, bytes_min, &format!("elements in {what}"))?;
                for _ in 0..count {
                    self.skip_value(element, depth + 1, what)?;
                }
            }
        }
        Ok(())
    }
}

fn check_bools(bytes: &[u8], what: &str) -> Result<(), String> {
    match bytes.iter().find(|&&byte| byte > 1) {
        Some(byte) => Err(format!("{what} is the truth value {byte}, neither 0 nor 1")),
        None => Ok(()),
    }
}
