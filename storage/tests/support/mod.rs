//! GGUF files byte by byte, as the format's description has them and without the crate's own writer.

#![allow(dead_code)]

/// A GGUF file in the making, sound or not.
#[derive(Clone)]
pub struct RawGguf {
    pub version: u32,
    pub entry_count: Option<u64>,
    pub tensor_count: Option<u64>,
    pub entries: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

impl RawGguf {
    pub fn new() -> Self {
        Self {
            version: 3,
            entry_count: None,
            tensor_count: None,
            entries: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        }
    }

    /// A small sound file: values of several types, three tensors, zeros between and behind them.
    pub fn sample() -> Self {
        let claimed = |byte: &u8| matches!(byte, 0..24 | 32..36 | 64..82);
        Self::new()
            .text("general.architecture", "llama")
            .u32("general.alignment", 32)
            .entry("llama.block_count", 10, &7_u64.to_le_bytes())
            .entry("llama.rope.freq_base", 6, &1e4_f32.to_le_bytes())
            .entry("tokenizer.ggml.add_bos_token", 7, &[1])
            .strings("tokenizer.ggml.tokens", &[b"a", b"", b"\xff\xfe"])
            .tensor("b.weight", &[3, 2], 0, 0)
            .tensor("a.weight", &[2], 1, 32)
            .tensor("c.weight", &[32, 1], 2, 64)
            .data((0..96).map(|byte| if claimed(&byte) { byte } else { 0 }).collect())
    }

    /// An entry of any type number with any bytes.
    pub fn entry(mut self, key: &str, value_type: u32, value: &[u8]) -> Self {
        let entry = [&string(key.as_bytes())[..], &value_type.to_le_bytes(), value].concat();
        self.entries.push(entry);
        self
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    pub fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, &string(value.as_bytes()))
    }

    pub fn strings(self, key: &str, values: &[&[u8]]) -> Self {
        let elements: Vec<u8> = values.iter().flat_map(|value| string(value)).collect();
        self.array(key, 8, values.len() as u64, &elements)
    }

    /// An array that claims `count` elements of a type number.
    pub fn array(self, key: &str, element: u32, count: u64, elements: &[u8]) -> Self {
        let value = [&element.to_le_bytes()[..], &count.to_le_bytes(), elements].concat();
        self.entry(key, 9, &value)
    }

    /// A tensor with dimensions in ggml's order, innermost first.
    pub fn tensor(self, name: &str, dimensions: &[u64], element: u32, offset: u64) -> Self {
        self.tensor_bytes(name.as_bytes(), dimensions, element, offset)
    }

    pub fn tensor_bytes(
        mut self,
        name: &[u8],
        dimensions: &[u64],
        element: u32,
        offset: u64,
    ) -> Self {
        let mut bytes = string(name);
        bytes.extend((dimensions.len() as u32).to_le_bytes());
        bytes.extend(dimensions.iter().flat_map(|size| size.to_le_bytes()));
        bytes.extend(element.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        self.tensors.push(bytes);
        self
    }

    pub fn data(mut self, data: Vec<u8>) -> Self {
        self.data = data;
        self
    }

    /// The bytes of the file.
    pub fn build(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        file.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        file.extend(self.entries.concat());
        file.extend(self.tensors.concat());
        if !self.data.is_empty() {
            file.resize(file.len().next_multiple_of(self.alignment), 0);
        }
        file.extend(&self.data);
        file
    }
}

/// A string as it lies in a file: its length, then its bytes.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}
