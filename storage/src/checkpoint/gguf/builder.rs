//! Making metadata: entries in the order in which they are given.

use super::metadata::{HEADER_BYTES, encode_header, encode_string};
use super::{GgufMetadata, Value, ValueType};

/// Metadata in the making. Keys are checked when it is [finished](Self::finish).
///
/// ```
/// use larql_storage::checkpoint::gguf::{GgufMetadataBuilder, Value};
///
/// let mut builder = GgufMetadataBuilder::new();
/// builder.text("general.architecture", "llama");
/// builder.array("tokenizer.ggml.scores", [0.0, -1.5].map(Value::F32));
/// let metadata = builder.finish()?;
/// assert_eq!(metadata.text("general.architecture").unwrap(), Some("llama"));
/// assert_eq!(metadata.array("tokenizer.ggml.scores").unwrap().map(|a| a.len()), Some(2));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone)]
pub struct GgufMetadataBuilder {
    /// A file: header, then the entries so far.
    file: Vec<u8>,
    entries: u64,
}

impl GgufMetadataBuilder {
    /// No entry yet.
    pub fn new() -> Self {
        Self { file: vec![0; HEADER_BYTES], entries: 0 }
    }

    fn key(&mut self, key: &str, value_type: ValueType) {
        self.entries += 1;
        encode_string(key.as_bytes(), &mut self.file);
        self.file.extend_from_slice(&value_type.number().to_le_bytes());
    }

    /// Appends an entry.
    pub fn value(&mut self, key: &str, value: Value<'_>) -> &mut Self {
        self.key(key, value.value_type());
        value.encode(&mut self.file);
        self
    }

    /// Appends a text.
    pub fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.value(key, Value::String(text.as_bytes()))
    }

    /// Appends an array of values of one type; an empty one is of type `U32`.
    ///
    /// # Panics
    /// When the values are of several types.
    pub fn array<'v>(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = Value<'v>>,
    ) -> &mut Self {
        self.key(key, ValueType::Array);
        let (mut values, mut count) = (values.into_iter().peekable(), 0_u64);
        let element = values.peek().map_or(ValueType::U32, Value::value_type);
        self.file.extend_from_slice(&element.number().to_le_bytes());
        let count_at = self.file.len();
        self.file.extend_from_slice(&count.to_le_bytes());
        for value in values {
            assert_eq!(value.value_type(), element, "elements of {key} differ in type");
            value.encode(&mut self.file);
            count += 1;
        }
        self.file[count_at..count_at + 8].copy_from_slice(&count.to_le_bytes());
        self
    }

    /// Appends every entry of `other` whose key `keep` takes.
    pub fn extend(&mut self, other: &GgufMetadata, keep: impl Fn(&str) -> bool) -> &mut Self {
        for (key, value) in other.iter().filter(|(key, _)| keep(key)) {
            self.value(key, value);
        }
        self
    }

    /// The metadata, checked as if it had been read from a file.
    ///
    /// # Errors
    /// A sentence fragment, when a key is empty, too long or given twice, or the alignment is none.
    pub fn finish(mut self) -> Result<GgufMetadata, String> {
        self.file[..HEADER_BYTES].copy_from_slice(&encode_header(0, self.entries));
        GgufMetadata::from_file(self.file)
    }
}

impl Default for GgufMetadataBuilder {
    fn default() -> Self {
        Self::new()
    }
}
