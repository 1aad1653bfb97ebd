//! `layers/layer_LL.weights`: the experts of one layer, with a table of where each lies.
//!
//! A header of six `u32` (the letters `LYRW`, version, format, entries, features, width), then for
//! each entry offset and length of gate and up together and of down, four `u64`, then the data. Rows
//! of the gate come first, then those of up; down is the output's way round, its rows padded.

use super::super::layout::Layout;
use super::{Assembly, Blocks, FORMATS, Place};
use crate::file::FileKind;
use crate::vindex::{TensorKey, VindexError};
use std::ffi::OsString;

const FOLDER: &str = "layers";
const MAGIC: [u8; 4] = *b"LYRW";
const HEADER_BYTES: usize = 6 * 4;
const ENTRY_BYTES: usize = 4 * 8;

/// Names of the formats by their number in the header.
const FORMAT_NAMES: [&str; 8] = ["f32", "f16", "bf16", "q4_0", "q4_k", "q6_k", "q8_0", "fp4"];

/// Rows of down are padded to a multiple of this.
const DOWN_PADDING: u64 = 256;

/// Adds the experts of every layer that has such a file.
pub(super) fn add(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    let folder = assembly.path(FOLDER);
    match assembly.files.metadata(&folder) {
        Ok(found) if found.kind == FileKind::Directory => {}
        _ => return Ok(()),
    }
    let io = |action| {
        let path = folder.clone();
        move |source| VindexError::Io { action, path, source }
    };
    let real = |path| assembly.files.canonicalize(path).map_err(io("look at"));
    if real(&folder)? != real(assembly.directory)?.join(FOLDER) {
        return Err(assembly.damaged(FOLDER, "it is a symbolic link"));
    }
    let names = assembly.files.list(&folder).map_err(io("list"))?;
    for name in names.iter().map(OsString::as_os_str) {
        let Some((name, layer)) = name.to_str().and_then(|name| Some((name, layer_of(name)?)))
        else {
            assembly.note(format!("{FOLDER}/{}: it is not read", name.display()));
            continue;
        };
        let file = format!("{FOLDER}/{name}");
        assembly.list(&file)?;
        layer_file(assembly, &file, layer)?;
    }
    Ok(())
}

/// The layer of `layer_07.weights`.
fn layer_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("layer_")?.strip_suffix(".weights")?;
    let plain = digits.len() >= 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn layer_file(assembly: &mut Assembly<'_>, file: &str, layer: u32) -> Result<(), VindexError> {
    let path = assembly.path(file);
    let mapping = assembly.files.map(&path).map_err(|source| VindexError::Io {
        action: "map",
        path,
        source,
    })?;
    let tables = parse(mapping.bytes(), assembly.header.hidden_size);
    let tables = tables.map_err(|problem| assembly.damaged(file, problem))?;
    let single = tables.len() == 1;
    for (number, Network { blocks, features, hidden, gate_up, down, down_columns }) in
        (0..).zip(tables)
    {
        let expert = (!single).then_some(number);
        let half = gate_up.1 / 2;
        let (rows, width) = (vec![features, hidden], None);
        let output = vec![hidden, features];
        let padded = (down_columns != features).then_some(down_columns);
        for (role, shape, columns_padded, offset, bytes) in [
            ("gate", rows.clone(), width, gate_up.0, half),
            ("up", rows, width, gate_up.0.saturating_add(half), half),
            ("down", output, padded, down.0, down.1),
        ] {
            let key = TensorKey { role: role.into(), layer: Some(layer), expert };
            let (name, layout, dtype) = (&*key.to_string(), Layout::RowMajor, blocks.tag);
            let key = key.clone();
            let place = Place { name, key, dtype, shape, columns_padded, layout, offset, bytes };
            assembly.add(file, place)?;
        }
    }
    Ok(())
}

/// One entry of the table, checked against its own numbers.
struct Network {
    blocks: Blocks,
    features: u64,
    hidden: u64,
    /// Offset and length.
    gate_up: (u64, u64),
    down: (u64, u64),
    down_columns: u64,
}

fn parse(bytes: &[u8], hidden_size: u64) -> Result<Vec<Network>, String> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err(format!("it has {} bytes, less than a header", bytes.len()));
    };
    let (words, _) = header.as_chunks::<4>();
    if words[0] != MAGIC {
        return Err(format!("it starts with {:02x?}, which is not LYRW", words[0]));
    }
    let number = |index: usize| u32::from_le_bytes(words[index]);
    let (version, format, count) = (number(1), number(2), number(3));
    let (features, hidden) = (u64::from(number(4)), u64::from(number(5)));
    if version != 1 {
        return Err(format!("its version is {version}, version 1 is read"));
    }
    let Some(name) = FORMAT_NAMES.get(format as usize) else {
        return Err(format!("its format {format} is not known"));
    };
    let blocks = FORMATS.iter().find(|(known, _)| known == name);
    let blocks = blocks.expect("every name is in the table").1;
    if hidden != hidden_size || !hidden.is_multiple_of(blocks.elements) {
        return Err(format!("rows of {hidden} in {name}, the model has {hidden_size}"));
    }
    let left = bytes.len() - HEADER_BYTES;
    if count as usize > left / ENTRY_BYTES {
        return Err(format!("it claims {count} entries, its {left} bytes hold fewer"));
    }
    let table = &bytes[HEADER_BYTES..HEADER_BYTES + count as usize * ENTRY_BYTES];
    let (entries, _) = table.as_chunks::<ENTRY_BYTES>();
    let gate_up_bytes = blocks.bytes_of(2 * features, hidden);
    let read = |(number, entry): (usize, &[u8; ENTRY_BYTES])| {
        let (words, _) = entry.as_chunks::<8>();
        let word = |index: usize| u64::from_le_bytes(words[index]);
        let (gate_up, down) = ((word(0), word(1)), (word(2), word(3)));
        let padded = features.next_multiple_of(DOWN_PADDING);
        let fits = |columns: &u64| blocks.bytes_of(hidden, *columns) == Some(down.1);
        let down_columns = [features, padded].into_iter().find(fits);
        match down_columns {
            Some(down_columns) if gate_up_bytes == Some(gate_up.1) => {
                Ok(Network { blocks, features, hidden, gate_up, down, down_columns })
            }
            _ => Err(format!(
                "entry {number}: {} and {} bytes are not {name} of {features} features",
                gate_up.1, down.1
            )),
        }
    };
    entries.iter().enumerate().map(read).collect()
}
