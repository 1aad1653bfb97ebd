//! safetensors files as the reference writes them, single or in shards with their index.
//!
//! Header keys, their order and the padding are those of the `safetensors` library, shard names and
//! the index those of `transformers`, so that a model that nobody changed comes out as it went in.

use super::staging::ModelStaging;
use super::{
    CheckpointWriteError, Result, TensorDescription, WeightFile, require_distinct, require_end,
    require_next,
};
use crate::checkpoint::hub::INDEX;
use crate::checkpoint::safetensors::{HEADER_BYTES_MAX, bytes_of, dtype_of};
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Largest shard that is written unless asked otherwise, the hub's habit.
pub const SHARD_BYTES_DEFAULT: u64 = 5_000_000_000;

/// Headers are padded with spaces to a multiple of this.
const HEADER_ALIGNMENT: usize = 8;

/// Safetensors weights in the making.
pub struct SafetensorsWriter<'s> {
    staging: &'s mut ModelStaging,
    shards: Vec<Shard>,
    /// Name and length of every tensor in the order of writing.
    order: Vec<(String, u64)>,
    /// Tensors written so far.
    written: usize,
    /// The shard that is open, and its position in `shards`.
    open: Option<(usize, WeightFile)>,
}

/// One file.
struct Shard {
    name: String,
    header: Vec<u8>,
    /// Tensors up to and including its last.
    end: usize,
}

impl<'s> SafetensorsWriter<'s> {
    /// Plans the files: shards of at most `shard_bytes_max` bytes of tensors, filled in the order of
    /// `tensors`; a larger tensor has one of its own. `metadata` goes into every header, usually
    /// `format` = `pt`.
    ///
    /// # Errors
    /// `Tensor`, when the format cannot hold one, or two have the same name; nothing is written yet.
    pub fn create(
        staging: &'s mut ModelStaging,
        tensors: Vec<TensorDescription>,
        metadata: &[(&str, &str)],
        shard_bytes_max: u64,
    ) -> Result<Self> {
        require_distinct(tensors.iter().map(|tensor| &*tensor.name))?;
        let mut groups: Vec<(u64, Vec<(TensorDescription, u64)>)> = vec![(0, Vec::new())];
        for tensor in tensors {
            let bytes = length_of(&tensor)?;
            let (filled, group) = groups.last_mut().expect("there is always one");
            let sum = filled.checked_add(bytes).filter(|&sum| sum <= shard_bytes_max);
            match sum {
                Some(sum) => {
                    *filled = sum;
                    group.push((tensor, bytes));
                }
                None if group.is_empty() => {
                    *filled = bytes;
                    group.push((tensor, bytes));
                }
                None => groups.push((bytes, vec![(tensor, bytes)])),
            }
        }
        let (count, single) = (groups.len(), staging.single_name().map(str::to_owned));
        let (mut shards, mut order) = (Vec::new(), Vec::new());
        for (number, (_, mut group)) in (1..).zip(groups) {
            let name = match &single {
                Some(name) => name.clone(),
                None if count == 1 => "model.safetensors".to_owned(),
                None => format!("model-{number:05}-of-{count:05}.safetensors"),
            };
            // The library's order: wide elements first, so that all are aligned, then by name.
            group.sort_by(|(a, _), (b, _)| {
                let wide = |tensor: &TensorDescription| dtype_of(&tensor.format);
                wide(b).cmp(&wide(a)).then_with(|| a.name.cmp(&b.name))
            });
            let header = encode_header(&group, metadata)?;
            order.extend(group.into_iter().map(|(tensor, bytes)| (tensor.name, bytes)));
            shards.push(Shard { name, header, end: order.len() });
        }
        staging.incomplete = true;
        Ok(Self { staging, shards, order, written: 0, open: None })
    }

    /// The names of all tensors, in the order in which they are to be written.
    pub fn order(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(|(name, _)| &**name)
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
        self.open_next()?;
        let bytes = self.order[self.written].1;
        let (shard, mut file) = self.open.take().expect("opened above");
        file.tensor(name, bytes, write)?;
        self.written += 1;
        match self.written == self.shards[shard].end {
            true => file.sync(),
            false => {
                self.open = Some((shard, file));
                Ok(())
            }
        }
    }

    /// Opens the shard of the next tensor, if it is not open.
    fn open_next(&mut self) -> Result<()> {
        if self.open.is_none() {
            let shard = self.shards.partition_point(|shard| shard.end <= self.written);
            let Shard { name, header, .. } = &self.shards[shard];
            let mut file = self.staging.create(name)?;
            file.put(&(header.len() as u64).to_le_bytes())?;
            file.put(header)?;
            self.open = Some((shard, file));
        }
        Ok(())
    }

    /// Writes the index, if there are shards.
    ///
    /// # Errors
    /// `Order`, when tensors are missing.
    pub fn finish(mut self) -> Result<()> {
        require_end(self.order.get(self.written).map(|(name, _)| &**name))?;
        if self.order.is_empty() {
            // A file without tensors is a header.
            self.open_next()?;
            let (_, file) = self.open.take().expect("opened above");
            file.sync()?;
        }
        if self.shards.len() > 1 {
            self.write_index()?;
        }
        self.staging.incomplete = false;
        Ok(())
    }

    fn write_index(&mut self) -> Result<()> {
        let mut weight_map: Vec<(&str, &str)> = Vec::with_capacity(self.order.len());
        let mut start = 0;
        for Shard { name, end, .. } in &self.shards {
            let tensors = &self.order[start..*end];
            weight_map.extend(tensors.iter().map(|(tensor, _)| (&**tensor, &**name)));
            start = *end;
        }
        weight_map.sort_unstable();
        let weight_map: Map<String, Value> =
            weight_map.into_iter().map(|(name, shard)| (name.to_owned(), shard.into())).collect();
        let total: u64 = self.order.iter().map(|(_, bytes)| bytes).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        let mut text = serde_json::to_vec_pretty(&index).expect("an index is plain data");
        text.push(b'\n');
        self.staging.side_file(INDEX, &text)
    }
}

impl std::fmt::Debug for SafetensorsWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SafetensorsWriter")
            .field("staging", &self.staging)
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

fn length_of(tensor: &TensorDescription) -> Result<u64> {
    let shape: Vec<u64> = tensor.shape.iter().map(|&size| size as u64).collect();
    bytes_of(&tensor.format, &shape)
        .map_err(|problem| CheckpointWriteError::Tensor { name: tensor.name.clone(), problem })
}

/// The JSON before the data, padded.
fn encode_header(
    tensors: &[(TensorDescription, u64)],
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        let entries: Map<_, _> =
            metadata.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
        header.insert("__metadata__".to_owned(), entries.into());
    }
    let mut start = 0_u64;
    for (TensorDescription { name, format, shape }, bytes) in tensors {
        let refuse = |problem: String| CheckpointWriteError::Tensor { name: name.clone(), problem };
        let end = start.checked_add(*bytes);
        let end = end.ok_or_else(|| refuse("the file would be too large".to_owned()))?;
        let entry = json!({ "dtype": format, "shape": shape, "data_offsets": [start, end] });
        if header.insert(name.clone(), entry).is_some() {
            return Err(refuse("the format keeps this name for itself".to_owned()));
        }
        start = end;
    }
    let mut header = serde_json::to_vec(&header).expect("a header is plain data");
    header.resize(header.len().next_multiple_of(HEADER_ALIGNMENT), b' ');
    if header.len() as u64 > HEADER_BYTES_MAX {
        let name = tensors.first().map_or(String::new(), |(tensor, _)| tensor.name.clone());
        let problem = format!("the file's header would have {} bytes", header.len());
        return Err(CheckpointWriteError::Tensor { name, problem });
    }
    Ok(header)
}
