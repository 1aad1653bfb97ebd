//! The instruction sets that kernels may use, and the variable that limits them.

use std::sync::LazyLock;

/// A level of instruction sets; each kernel lists its variants by it. Those of one architecture stand
/// least first, and no processor has levels of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: the definition that the others must match.
    Scalar,
    /// NEON, which every 64-bit ARM processor has.
    Neon,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// `LARQL_ISA` names no level of this architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("LARQL_ISA is {found:?}; set it to {}, or unset it", Isa::names_here())]
pub struct IsaError {
    /// The value found.
    pub found: String,
}

impl Isa {
    /// The name by which `LARQL_ISA` and reports know the level.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// The levels of this architecture, least first.
    const fn here() -> &'static [Isa] {
        if cfg!(target_arch = "x86_64") {
            &[Isa::Scalar, Isa::Avx2, Isa::Avx512]
        } else if cfg!(target_arch = "aarch64") {
            &[Isa::Scalar, Isa::Neon]
        } else {
            &[Isa::Scalar]
        }
    }

    /// Their names, as a sentence has them.
    fn names_here() -> String {
        let names: Vec<&str> = Isa::here().iter().map(|isa| isa.name()).collect();
        match names.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} or {last}", others.join(", "))
            }
            _ => names.concat(),
        }
    }

    /// The best level that this processor has and `LARQL_ISA` permits.
    ///
    /// The kernels themselves take an unreadable value for unset, so a program should ask here
    /// once at its start.
    ///
    /// # Errors
    /// `IsaError` where the variable is set to something else than a level's name.
    pub fn selected() -> Result<Isa, IsaError> {
        let limit = limit_from(std::env::var("LARQL_ISA").ok())?;
        Ok(limit.map_or(Isa::best(), |limit| limit.min(Isa::best())))
    }

    /// The best level that this processor has.
    pub fn best() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() && has_avx512() {
                return Isa::Avx512;
            }
            if has_avx2() {
                return Isa::Avx2;
            }
        }
        if cfg!(target_arch = "aarch64") { Isa::Neon } else { Isa::Scalar }
    }
}

/// Whether a kernel of the level [`Isa::Avx2`] may run here.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// Whether a kernel of the level [`Isa::Avx512`] may run here.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

fn limit_from(value: Option<String>) -> Result<Option<Isa>, IsaError> {
    match value {
        None => Ok(None),
        Some(value) => Isa::here()
            .iter()
            .copied()
            .find(|isa| isa.name() == value)
            .map(Some)
            .ok_or(IsaError { found: value }),
    }
}

/// The last of a kernel's variants that `LARQL_ISA` permits; dispatch asks once a process.
pub(crate) fn fastest<K>(variants: Vec<(Isa, K)>) -> K {
    static LIMIT: LazyLock<Isa> = LazyLock::new(|| Isa::selected().unwrap_or(Isa::best()));
    let permitted = variants.into_iter().filter(|(isa, _)| *isa <= *LIMIT).last();
    permitted.expect("every kernel has a scalar variant").1
}

/// The variants of an `#[inline(always)]` function that differ in nothing but what the compiler may
/// use for it: the same operations, wider.
macro_rules! compiled_for_each_isa {
    ($function:path, fn($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {{
        type Variant = fn($($type),*) $(-> $result)?;
        #[allow(unused_mut, reason = "extended on processors with variants")]
        let mut found: Vec<($crate::cpu::Isa, Variant)> = vec![($crate::cpu::Isa::Scalar, $function)];
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($argument: $type),*) $(-> $result)? {
                $function($($argument),*)
            }
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($argument: $type),*) $(-> $result)? {
                $function($($argument),*)
            }
            if $crate::cpu::Isa::best() >= $crate::cpu::Isa::Avx2 {
                // SAFETY: the features were found.
                found.push(($crate::cpu::Isa::Avx2, |$($argument),*| unsafe { avx2($($argument),*) }));
            }
            if $crate::cpu::Isa::best() >= $crate::cpu::Isa::Avx512 {
                // SAFETY: the features were found.
                found.push(($crate::cpu::Isa::Avx512, |$($argument),*| unsafe { avx512($($argument),*) }));
            }
        }
        found
    }};
}
pub(crate) use compiled_for_each_isa;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_nobody_knows_is_refused_with_its_name() {
        assert_eq!(limit_from(None), Ok(None));
        for isa in Isa::here() {
            assert_eq!(limit_from(Some(isa.name().into())), Ok(Some(*isa)));
        }
        // Of another architecture, or of none.
        let other = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
        for name in [other, "sse9"] {
            let error = limit_from(Some(name.into())).unwrap_err();
            assert!(error.to_string().contains(&format!("{name:?}; set it to scalar")), "{error}");
        }
    }

    #[test]
    fn the_last_permitted_variant_is_chosen() {
        assert_eq!(fastest(vec![(Isa::Scalar, 1)]), 1);
        let expected = if Isa::selected().unwrap_or(Isa::best()) >= Isa::Avx2 { 2 } else { 1 };
        assert_eq!(fastest(vec![(Isa::Scalar, 1), (Isa::Avx2, 2)]), expected);
    }
}
