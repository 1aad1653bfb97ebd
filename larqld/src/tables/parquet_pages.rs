//! What the pages of a Parquet file say that they unpack to, looked at before anything is unpacked.
//!
//! The reader of the format takes memory as a page's header asks, and unpacks gzip to whatever comes out.
//! So the headers are walked first: each page, and all together, must be within bounds, and a page in
//! gzip must hold no more than its header says.
//!
//! Headers are Thrift structures in the compact protocol (the `PageHeader` of `parquet.thrift`).

use std::io::{self, Read as _};

use ::parquet::basic::Compression;
use ::parquet::file::metadata::ParquetMetaData;
use flate2::read::MultiGzDecoder;
use larql_compute::cpu::Cancel;

use super::{FILE_BYTES_MAX, TABLE_BYTES_MAX, bad_file};
use crate::failure::{Failure, code};

/// The most bytes that one page unpacks to.
const PAGE_BYTES_MAX: u64 = FILE_BYTES_MAX;
/// How deep structures in a header may lie in one another.
const DEPTH_MAX: usize = 8;

/// Looks at every page of a file.
///
/// # Errors
/// `BAD_FILE` for pages that contradict themselves, `LIMIT` for those that unpack to too much; a cancel.
pub(super) fn check(
    bytes: &[u8],
    metadata: &ParquetMetaData,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let broken =
        || bad_file("the pages of the parquet file contradict themselves", "check the file");
    let mut unpacked = 0_u64;
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let packing = column.compression();
        let first = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let (first, length) = (usize::try_from(first), usize::try_from(column.compressed_size()));
        let (Ok(mut at), Ok(length)) = (first, length) else { return Err(broken()) };
        let end = at.saturating_add(length).min(bytes.len());
        while at < end {
            cancel.check()?;
            let mut header = Compact { bytes: &bytes[at..], at: 0 };
            let page = PageHeader::read(&mut header).ok_or_else(broken)?;
            let start = at + header.at;
            let packed = bytes.get(start..start.saturating_add(page.packed)).ok_or_else(broken)?;
            at = start + page.packed;
            if packing == Compression::UNCOMPRESSED {
                continue;
            }
            unpacked = unpacked.saturating_add(page.unpacked);
            if page.unpacked > PAGE_BYTES_MAX || unpacked > TABLE_BYTES_MAX as u64 {
                let message = format!("the file's pages unpack to {unpacked} bytes or more");
                let hint = format!("a table takes at most {TABLE_BYTES_MAX}; split the file");
                return Err(Failure::new(code::LIMIT, message).hint(hint));
            }
            if matches!(packing, Compression::GZIP(_)) && page.is_packed {
                let packed = packed.get(page.levels..).ok_or_else(broken)?;
                let mut longest = MultiGzDecoder::new(packed).take(page.unpacked + 1);
                // What is no gzip is told by the reader.
                let found = io::copy(&mut longest, &mut io::sink()).unwrap_or(0);
                if found + page.levels as u64 > page.unpacked {
                    return Err(broken());
                }
            }
        }
    }
    Ok(())
}

/// What is needed of a page's header.
struct PageHeader {
    /// Bytes that it unpacks to.
    unpacked: u64,
    /// Bytes in the file after the header.
    packed: usize,
    /// Bytes of levels before what is packed; only pages of the second version have them apart.
    levels: usize,
    /// Whether it is packed at all, which pages of the second version say.
    is_packed: bool,
}

impl PageHeader {
    fn read(input: &mut Compact<'_>) -> Option<Self> {
        let (mut unpacked, mut packed, mut levels, mut is_packed) = (None, None, 0_usize, true);
        input.structure(&mut |input, field, kind| match (field, kind) {
            (2, INTEGER_32) => input.integer().map(|bytes| unpacked = u64::try_from(bytes).ok()),
            (3, INTEGER_32) => input.integer().map(|bytes| packed = usize::try_from(bytes).ok()),
            (8, STRUCTURE) => input.structure(&mut |input, field, kind| match (field, kind) {
                (5 | 6, INTEGER_32) => {
                    levels = levels.checked_add(usize::try_from(input.integer()?).ok()?)?;
                    Some(())
                }
                (7, TRUE | FALSE) => {
                    is_packed = kind == TRUE;
                    Some(())
                }
                _ => input.skip(kind, 0),
            }),
            _ => input.skip(kind, 0),
        })?;
        Some(Self { unpacked: unpacked?, packed: packed?, levels, is_packed })
    }
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const INTEGER_32: u8 = 5;
const STRUCTURE: u8 = 12;

/// Bytes in Thrift's compact protocol; `None` from any of its functions means that they are not.
struct Compact<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn natural(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let zigzag = self.natural()?;
        Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        let at = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        self.at = (at <= self.bytes.len()).then_some(at)?;
        Some(())
    }

    /// Visits the fields of a structure, each of which the visitor reads or skips.
    fn structure(&mut self, visit: &mut dyn FnMut(&mut Self, i64, u8) -> Option<()>) -> Option<()> {
        let mut field = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            field = match head >> 4 {
                0 => self.integer()?,
                step => field.checked_add(step.into())?,
            };
            visit(self, field, head & 0x0F)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match kind {
            TRUE | FALSE => Some(()),
            3 => self.pass(1),
            4..=6 => self.natural().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.natural()?;
                self.pass(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.natural()? } else { u64::from(head >> 4) };
                (0..count).try_for_each(|_| self.skip_item(head & 0x0F, depth + 1))
            }
            11 => {
                let count = self.natural()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.skip_item(kinds >> 4, depth + 1)?;
                    self.skip_item(kinds & 0x0F, depth + 1)
                })
            }
            STRUCTURE => self.structure(&mut |input, _, kind| input.skip(kind, depth + 1)),
            _ => None,
        }
    }

    /// Skips an item of a list; truth values have a byte there.
    fn skip_item(&mut self, kind: u8, depth: usize) -> Option<()> {
        if matches!(kind, TRUE | FALSE) { self.pass(1) } else { self.skip(kind, depth) }
    }
}
