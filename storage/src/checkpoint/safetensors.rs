//! One safetensors file: eight bytes of header length, a JSON header, the data.
//!
//! The header is parsed here rather than by the `safetensors` crate, which lets the last of two equal
//! keys win; the element formats and their widths are the crate's. Accepted is what the format's
//! description allows: the tensors' ranges tile the data without gap or overlap, and each is as
//! long as its shape and format say.

use super::json::Entries;
use super::{Found, shorten};
use safetensors::Dtype;
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use std::fmt;

/// The longest header that the format allows.
pub(super) const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Most dimensions of a tensor.
const DIMENSIONS_MAX: usize = 8;
/// The header's one key that is no tensor.
const METADATA: &str = "__metadata__";

#[derive(Deserialize)]
struct TensorInfo {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header's tensors in the order of the text.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut tensors, mut metadata_seen) = (Vec::new(), false);
        while let Some(name) = map.next_key::<String>()? {
            if name != METADATA {
                tensors.push((name, map.next_value()?));
            } else if std::mem::replace(&mut metadata_seen, true) {
                return Err(A::Error::custom("__metadata__ is given twice"));
            } else {
                map.next_value::<Entries<String>>()?;
            }
        }
        Ok(Header(tensors))
    }
}

/// Reads the header of a whole file and returns its tensors, sorted by their place in the data.
///
/// # Errors
/// A sentence fragment saying what is wrong with the file.
pub(super) fn parse(file: &[u8]) -> Result<Vec<Found>, String> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(format!("it has {} bytes, less than a header length", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX {
        return Err(format!("its header claims {length} bytes, the most is {HEADER_BYTES_MAX}"));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        return Err(format!("its header claims {length} bytes, {} are left", rest.len()));
    };
    let Header(mut tensors) =
        serde_json::from_slice(header).map_err(|error| format!("its header: {error}"))?;
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(twins) = tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("its header gives tensor {:?} twice", twins[0].0));
    }
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let data_start = 8 + header.len();
    let mut free_from = 0;
    let mut found = Vec::with_capacity(tensors.len());
    for (name, TensorInfo { dtype, shape, data_offsets: [begin, end] }) in tensors {
        let refuse = |problem: String| Err(format!("tensor {}: {problem}", shorten(&name)));
        if begin > end || end > data.len() as u64 {
            return refuse(format!("range {begin}..{end} is not within {} bytes", data.len()));
        }
        if begin != free_from {
            return refuse(format!("range {begin}..{end} should start at {free_from}"));
        }
        match bytes_of(&dtype, &shape) {
            Ok(expected) if expected == end - begin => {}
            Ok(expected) => {
                let given = end - begin;
                return refuse(format!(
                    "{dtype} {shape:?} takes {expected} bytes, {given} are given"
                ));
            }
            Err(problem) => return refuse(problem),
        }
        free_from = end;
        found.push(Found {
            name,
            format: dtype.into(),
            shape: shape
                .iter()
                .map(|&size| usize::try_from(size))
                .collect::<Result<_, _>>()
                .map_err(|_| "a dimension does not fit this machine".to_owned())?,
            range: data_start + begin as usize..data_start + end as usize,
        });
    }
    if free_from != data.len() as u64 {
        return Err(format!("its tensors end after {free_from} of {} data bytes", data.len()));
    }
    Ok(found)
}

/// The library's name for an element format.
pub(super) fn dtype_of(format: &str) -> Option<Dtype> {
    let name: StrDeserializer<'_, ValueError> = format.into_deserializer();
    Dtype::deserialize(name).ok()
}

/// The bytes that a tensor of this element format and shape takes.
pub(super) fn bytes_of(format: &str, shape: &[u64]) -> Result<u64, String> {
    let bits = match dtype_of(format) {
        Some(dtype) => dtype.bitsize() as u64,
        None => return Err(format!("element format {} is not known", shorten(format))),
    };
    if shape.len() > DIMENSIONS_MAX {
        return Err(format!("{} dimensions, the most is {DIMENSIONS_MAX}", shape.len()));
    }
    let total = shape.iter().try_fold(bits, |product, &size| product.checked_mul(size));
    match total {
        Some(bits) if bits.is_multiple_of(8) => Ok(bits / 8),
        Some(_) => Err(format!("{format} {shape:?} does not fill whole bytes")),
        None => Err(format!("the size of shape {shape:?} overflows")),
    }
}
