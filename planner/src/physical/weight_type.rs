//! The types that COMPILE writes weights in, by the names that model files use.

macro_rules! weight_types {
    ($($variant:ident $name:literal $plain:literal $meaning:literal,)*) => {
        /// The type of written weights: one for all of them, or a mixture of block types.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum WeightType {
            $(#[doc = $meaning] $variant,)*
        }

        impl WeightType {
            /// Every type, widest first.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name, as in statements and in the names of GGUF files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether each number stands by itself; safetensors hold no others.
            pub fn is_plain(self) -> bool {
                match self { $(Self::$variant => $plain,)* }
            }
        }
    };
}

weight_types! {
    F32 "F32" true "32-bit floats.",
    F16 "F16" true "16-bit floats.",
    Bf16 "BF16" true "The upper half of 32-bit floats.",
    Q8_0 "Q8_0" false "8 bits, blocks of 32.",
    Q6K "Q6_K" false "6 bits, blocks of 256.",
    Q5K "Q5_K" false "5 bits, blocks of 256.",
    Q5_1 "Q5_1" false "5 bits with an offset, blocks of 32.",
    Q5_0 "Q5_0" false "5 bits, blocks of 32.",
    Q4K "Q4_K" false "4 bits, blocks of 256.",
    Q4KM "Q4_K_M" false "4 bits, and 6 bits for the tensors that suffer most.",
    Q4_1 "Q4_1" false "4 bits with an offset, blocks of 32.",
    Q4_0 "Q4_0" false "4 bits, blocks of 32.",
}

impl WeightType {
    /// The type of that name, in either case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}
