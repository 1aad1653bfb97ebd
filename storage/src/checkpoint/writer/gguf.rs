//! A GGUF file: version 3, little-endian, everything at the alignment that its metadata asks for.

use super::staging::ModelStaging;
use super::{
    CheckpointWriteError, Result, TensorDescription, WeightFile, require_distinct, require_end,
    require_next,
};
use crate::checkpoint::gguf::{
    ALIGNMENT_DEFAULT, ALIGNMENT_KEY, DIMENSIONS_MAX, ElementType, GgufMetadata, encode_header,
    encode_string,
};
use std::io::{self, Write};

/// Longest tensor name that ggml reads (`GGML_MAX_NAME` less its terminator).
const NAME_BYTES_MAX: usize = 63;

/// A GGUF file in the making.
pub struct GgufWriter<'s> {
    staging: &'s mut ModelStaging,
    file: WeightFile,
    alignment: u64,
    /// Name and length of every tensor in order.
    order: Vec<(String, u64)>,
    /// Tensors written so far.
    written: usize,
}

impl<'s> GgufWriter<'s> {
    /// Writes everything before the data: `metadata` as it is, and the tensors in this order.
    ///
    /// # Errors
    /// `Tensor`, when ggml could not read one (its type, name or shape), or two have the same name;
    /// `FileName`; `Io`.
    pub fn create(
        staging: &'s mut ModelStaging,
        name: &str,
        metadata: &GgufMetadata,
        tensors: &[TensorDescription],
    ) -> Result<Self> {
        require_distinct(tensors.iter().map(|tensor| &*tensor.name))?;
        // Metadata was checked when it was made: an alignment in it is a power of two.
        let alignment = metadata.u64(ALIGNMENT_KEY).ok().flatten().unwrap_or(ALIGNMENT_DEFAULT);
        let (mut descriptions, mut order) = (Vec::new(), Vec::new());
        let mut offset = 0_u64;
        for tensor in tensors {
            let bytes = describe(tensor, offset, &mut descriptions).map_err(|problem| {
                CheckpointWriteError::Tensor { name: tensor.name.clone(), problem }
            })?;
            let end = offset.checked_add(bytes);
            offset =
                end.and_then(|end| end.checked_next_multiple_of(alignment)).ok_or_else(|| {
                    let problem = "the file would be too large".to_owned();
                    CheckpointWriteError::Tensor { name: tensor.name.clone(), problem }
                })?;
            order.push((tensor.name.clone(), bytes));
        }
        let mut file = staging.create(name)?;
        file.put(&encode_header(tensors.len() as u64, metadata.len() as u64))?;
        file.put(metadata.encoded_entries())?;
        file.put(&descriptions)?;
        file.pad(alignment)?;
        staging.incomplete = true;
        Ok(Self { staging, file, alignment, order, written: 0 })
    }

    /// Takes the bytes of the next tensor, exactly as many as format and shape ask for.
    ///
    /// # Errors
    /// `Order`, `WrongLength`, or what `write` returned, as `Io`; the writer is of no use then.
    pub fn tensor(
        &mut self,
        name: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        require_next(self.order.get(self.written).map(|(name, _)| &**name), name)?;
        self.file.tensor(name, self.order[self.written].1, write)?;
        self.written += 1;
        self.file.pad(self.alignment)
    }

    /// Makes the file durable, still at its staging place.
    ///
    /// # Errors
    /// `Order`, when tensors are missing; `Io`.
    pub fn finish(self) -> Result<()> {
        require_end(self.order.get(self.written).map(|(name, _)| &**name))?;
        self.file.sync()?;
        self.staging.incomplete = false;
        Ok(())
    }
}

impl std::fmt::Debug for GgufWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GgufWriter").field("path", &self.file.path).finish_non_exhaustive()
    }
}

/// Appends a tensor's description, and returns the bytes that it takes.
fn describe(tensor: &TensorDescription, offset: u64, out: &mut Vec<u8>) -> Result<u64, String> {
    let TensorDescription { name, format, shape } = tensor;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("its name has {} bytes, ggml reads {NAME_BYTES_MAX}", name.len()));
    }
    if shape.len() > DIMENSIONS_MAX {
        return Err(format!("{} dimensions, the most is {DIMENSIONS_MAX}", shape.len()));
    }
    let Some(element_type) = ElementType::from_name(format) else {
        return Err(format!("ggml has no element type {format}"));
    };
    let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
    let bytes = element_type.bytes(&shape)?;
    encode_string(name.as_bytes(), out);
    out.extend_from_slice(&(shape.len() as u32).to_le_bytes());
    for size in shape.iter().rev() {
        out.extend_from_slice(&size.to_le_bytes());
    }
    out.extend_from_slice(&element_type.number.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    Ok(bytes)
}
