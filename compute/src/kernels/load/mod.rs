//! Loading a register of floats from stored numbers: shared by the kernels that read weights.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
