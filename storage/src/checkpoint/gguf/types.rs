//! The numbers of the format: what a metadata value is, and how many bytes a tensor's elements take.
//!
//! Both tables are those of ggml (`gguf.h`, `ggml.h` and `ggml-common.h` of the ggml repository). What
//! the elements mean is not known here: a tensor's type is handed on by its name.

/// What a metadata value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// In the order of their numbers in a file, which start at 0.
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The type of that number.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Its number in a file.
    pub(super) fn number(self) -> u32 {
        // The variants are declared in the order of their numbers.
        self as u32
    }

    /// Bytes of one value; `None` where they differ from value to value.
    pub(super) fn bytes(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// How ggml stores the elements of a tensor: in blocks of so many elements and bytes, along a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementType {
    /// Its number in a file.
    pub number: u32,
    /// Its name, which [`crate::checkpoint::Tensor::format`] hands on.
    pub name: &'static str,
    /// Elements of a block; a row is whole blocks.
    pub block_elements: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
}

/// Every element type that ggml has and still reads, by number.
pub const ELEMENT_TYPES: &[ElementType] = &[
    element_type(0, "F32", 1, 4),
    element_type(1, "F16", 1, 2),
    element_type(2, "Q4_0", 32, 18),
    element_type(3, "Q4_1", 32, 20),
    element_type(6, "Q5_0", 32, 22),
    element_type(7, "Q5_1", 32, 24),
    element_type(8, "Q8_0", 32, 34),
    element_type(9, "Q8_1", 32, 36),
    element_type(10, "Q2_K", 256, 84),
    element_type(11, "Q3_K", 256, 110),
    element_type(12, "Q4_K", 256, 144),
    element_type(13, "Q5_K", 256, 176),
    element_type(14, "Q6_K", 256, 210),
    element_type(15, "Q8_K", 256, 292),
    element_type(16, "IQ2_XXS", 256, 66),
    element_type(17, "IQ2_XS", 256, 74),
    element_type(18, "IQ3_XXS", 256, 98),
    element_type(19, "IQ1_S", 256, 50),
    element_type(20, "IQ4_NL", 32, 18),
    element_type(21, "IQ3_S", 256, 110),
    element_type(22, "IQ2_S", 256, 82),
    element_type(23, "IQ4_XS", 256, 136),
    element_type(24, "I8", 1, 1),
    element_type(25, "I16", 1, 2),
    element_type(26, "I32", 1, 4),
    element_type(27, "I64", 1, 8),
    element_type(28, "F64", 1, 8),
    element_type(29, "IQ1_M", 256, 56),
    element_type(30, "BF16", 1, 2),
    element_type(34, "TQ1_0", 256, 54),
    element_type(35, "TQ2_0", 256, 66),
    element_type(39, "MXFP4", 32, 17),
    element_type(40, "NVFP4", 64, 36),
    element_type(41, "Q1_0", 128, 18),
];

const fn element_type(
    number: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
) -> ElementType {
    ElementType { number, name, block_elements, block_bytes }
}

impl ElementType {
    /// The type of that number.
    pub fn from_number(number: u32) -> Option<&'static Self> {
        ELEMENT_TYPES.iter().find(|found| found.number == number)
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<&'static Self> {
        ELEMENT_TYPES.iter().find(|found| found.name == name)
    }

    /// The bytes of a tensor of these dimensions, outermost first.
    ///
    /// # Errors
    /// A sentence fragment, when a row is not whole blocks or the size overflows.
    pub fn bytes(&self, shape: &[u64]) -> Result<u64, String> {
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(self.block_elements) {
            let Self { name, block_elements, .. } = self;
            return Err(format!("a row of {row} is not whole {name} blocks of {block_elements}"));
        }
        // A dimension of 0 does not excuse others that overflow: whoever multiplies them in another
        // order would get something else.
        let elements =
            shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size.max(1)));
        let elements = elements.map(|count| if shape.contains(&0) { 0 } else { count });
        elements
            .and_then(|count| (count / self.block_elements).checked_mul(self.block_bytes))
            .ok_or_else(|| format!("the size of shape {shape:?} overflows"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_finds_its_own_type_and_no_other() {
        for (number, value_type) in (0..).zip(ValueType::ALL) {
            assert_eq!(value_type.number(), number);
            assert_eq!(ValueType::from_number(number), Some(value_type));
        }
        assert_eq!(ValueType::from_number(13), None);
        for element in ELEMENT_TYPES {
            assert_eq!(ElementType::from_number(element.number), Some(element));
            assert_eq!(ElementType::from_name(element.name), Some(element));
        }
        for removed in [4, 5, 31, 32, 33, 36, u32::MAX] {
            assert_eq!(ElementType::from_number(removed), None);
        }
    }

    #[test]
    fn tensor_takes_whole_blocks_and_its_size_does_not_overflow() {
        let q4_k = ElementType::from_name("Q4_K").unwrap();
        assert_eq!(q4_k.bytes(&[3, 512]), Ok(3 * 2 * 144));
        assert_eq!(q4_k.bytes(&[0, 256]), Ok(0));
        assert_eq!(ElementType::from_name("F32").unwrap().bytes(&[]), Ok(4));
        for row in [1, 255, 257, 2_880] {
            assert!(q4_k.bytes(&[2, row]).unwrap_err().contains("whole Q4_K blocks"), "{row}");
        }
        for shape in [[1 << 32, 1 << 32], [1 << 57, 1 << 8], [u64::MAX, 256]] {
            assert!(q4_k.bytes(&shape).unwrap_err().contains("overflows"), "{shape:?}");
        }
    }
}
