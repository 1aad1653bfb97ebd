//! Words of several rows side by side, for unpacking: what a processor's registers must offer.
//!
//! A lane is a row, a word four bytes of it. Unpacking is written once over this trait (`unpack`)
//! and compiled into each variant, whose registers implement it.

use super::tile::Line;

/// Where the rows of a register begin; as many as the register has lanes are looked at.
pub(in crate::kernels) type Pointers = [*const u8; 16];

/// A register of 32-bit words, one a row.
///
/// # Safety
/// Methods may be called only where the variant that implements them may run. They are inlined
/// into functions that enable its instructions.
pub(in crate::kernels) trait Lanes: Copy {
    /// How many rows.
    const COUNT: usize;

    /// The same word in every lane.
    unsafe fn splat(word: u32) -> Self;
    /// Words from memory, at least `COUNT` of them.
    unsafe fn load(words: *const u32) -> Self;
    /// Words into a line, from its lane `first` on.
    unsafe fn store(self, line: &mut Line, first: usize);
    unsafe fn and(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    /// Wrapping differences of words.
    unsafe fn sub(self, other: Self) -> Self;
    /// The lower words of products.
    unsafe fn mul(self, other: Self) -> Self;
    /// Words shifted up.
    unsafe fn shl(self, bits: u32) -> Self;
    /// Words shifted down, zeros following.
    unsafe fn shr(self, bits: u32) -> Self;
    /// `table[byte]` for each byte, which is below 16.
    unsafe fn look_up(self, table: &[u8; 16]) -> Self;
    /// The bits of the binary32 that equals the binary16 in each word's lower half.
    unsafe fn widen_half(self) -> Self;
    /// Four words of each row, from the byte `at` on: `result[i]` is word `i` of every row. The
    /// first `COUNT` pointers must be good for `at + 16` bytes.
    unsafe fn words_4(rows: &Pointers, at: usize) -> [Self; 4];

    /// One word of each row; the pointers must be good for `at + 4` bytes.
    #[inline(always)]
    unsafe fn word(rows: &Pointers, at: usize) -> Self {
        let mut words = [0; 16];
        for lane in 0..Self::COUNT {
            // SAFETY: the caller's promise; no alignment is asked for.
            words[lane] = unsafe { rows[lane].add(at).cast::<u32>().read_unaligned() };
        }
        // SAFETY: there are at least `COUNT` words.
        unsafe { Self::load(words.as_ptr()) }
    }

    /// Two bytes of each row, in the lower half of its word; the pointers must be good for
    /// `at + 2` bytes.
    #[inline(always)]
    unsafe fn half_word(rows: &Pointers, at: usize) -> Self {
        let mut words = [0; 16];
        for lane in 0..Self::COUNT {
            // SAFETY: the caller's promise; no alignment is asked for.
            words[lane] = u32::from(unsafe { rows[lane].add(at).cast::<u16>().read_unaligned() });
        }
        // SAFETY: there are at least `COUNT` words.
        unsafe { Self::load(words.as_ptr()) }
    }

    /// A word a lane, wherever it comes from.
    #[inline(always)]
    unsafe fn from_fn(word: impl Fn(usize) -> u32) -> Self {
        let mut words = [0; 16];
        for (lane, out) in words[..Self::COUNT].iter_mut().enumerate() {
            *out = word(lane);
        }
        // SAFETY: there are at least `COUNT` words.
        unsafe { Self::load(words.as_ptr()) }
    }
}
