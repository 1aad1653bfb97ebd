//! The k-quants of ggml: blocks of 256 elements whose sub-scales are quantised themselves.
//!
//! One file a format; what they share stands here: how `Q4_K` and `Q5_K` pack eight 6-bit scales
//! and minima into 12 bytes.

mod q2_k;
mod q3_k;
mod q4_k;
mod q5_k;
mod q6_k;

pub(super) use q2_k::Q2_K;
pub(super) use q3_k::Q3_K;
pub(super) use q4_k::Q4_K;
pub(super) use q5_k::Q5_K;
pub(super) use q6_k::Q6_K;

/// Elements of a block.
const ELEMENTS: usize = 256;

/// The 6-bit scale and minimum of a sub-block of `Q4_K` and `Q5_K`.
///
/// The first four scales are the lower six bits of bytes 0 to 3, the first four minima those of
/// bytes 4 to 7; of the others, bytes 8 to 11 hold the lower four bits (scale low, minimum high),
/// and the free upper two bits of the first eight bytes the rest.
#[inline(always)]
fn scale_and_min(packed: &[u8], index: usize) -> (u8, u8) {
    if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        (
            (packed[index + 4] & 15) | (packed[index - 4] >> 6) << 4,
            (packed[index + 4] >> 4) | (packed[index] >> 6) << 4,
        )
    }
}
