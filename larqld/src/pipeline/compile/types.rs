//! Which type each tensor of a compiled model gets.

use larql_compute::model::Role;
use larql_compute::quant::Dtype;
use larql_planner::physical::plan::WeightType;

/// The plain or block type that a name asks for; mixtures have one for most tensors.
pub(super) fn base(kind: WeightType) -> Dtype {
    match kind {
        WeightType::F32 => Dtype::F32,
        WeightType::F16 => Dtype::F16,
        WeightType::Bf16 => Dtype::BF16,
        WeightType::Q8_0 => Dtype::Q8_0,
        WeightType::Q6K => Dtype::Q6K,
        WeightType::Q5K => Dtype::Q5K,
        WeightType::Q5_1 => Dtype::Q5_1,
        WeightType::Q5_0 => Dtype::Q5_0,
        WeightType::Q4K | WeightType::Q4KM => Dtype::Q4K,
        WeightType::Q4_1 => Dtype::Q4_1,
        WeightType::Q4_0 => Dtype::Q4_0,
    }
}

/// The number of `general.file_type` that stands for a type, as llama.cpp numbers them.
pub(super) fn file_type(dtype: Dtype, mixture: bool) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::Q4_0 => 2,
        Dtype::Q4_1 => 3,
        Dtype::Q8_0 => 7,
        Dtype::Q5_0 => 8,
        Dtype::Q5_1 => 9,
        Dtype::Q4K => 14 + u32::from(mixture),
        Dtype::Q5K => 16,
        Dtype::Q6K => 18,
        Dtype::BF16 => 32,
        _ => 1,
    }
}

/// Matrices that llama.cpp reads as 32-bit floats: small ones on which much depends.
pub(super) fn stays_wide(role: Role) -> bool {
    matches!(role, Role::PositionEmbedding | Role::Router | Role::SharedExpertGate)
}

/// Where a matrix is, as far as its type depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) role: Role,
    pub(super) layer: Option<u32>,
    pub(super) layers: u32,
    /// Whether the unembedding is this embedding.
    pub(super) tied: bool,
}

/// The type of a matrix with rows of `columns` numbers: what is asked for, or, in a mixture, more bits
/// where errors cost most, or, where rows are no whole blocks, the next type that has room.
pub(super) fn of_matrix(kind: WeightType, place: Place, columns: usize) -> Dtype {
    let mut dtype = base(kind);
    if kind == WeightType::Q4KM && suffers_most(place) {
        dtype = Dtype::Q6K;
    }
    fitting(dtype, columns)
}

/// The tensors that llama.cpp's Q4_K_M keeps in Q6_K: the unembedding, and values and down projections
/// of the first eighth, the last eighth and every third layer between.
fn suffers_most(place: Place) -> bool {
    let Place { role, layer, layers, tied } = place;
    match (role, layer) {
        (Role::Unembedding, _) => true,
        (Role::Embedding, _) => tied,
        (Role::Value | Role::Down, Some(layer)) => {
            let eighth = layers / 8;
            layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
        }
        _ => false,
    }
}

/// A type whose blocks divide rows of `columns`, as near to the wanted one as llama.cpp goes.
fn fitting(dtype: Dtype, columns: usize) -> Dtype {
    let divides = |dtype: Dtype| columns.is_multiple_of(dtype.block().0);
    if divides(dtype) {
        return dtype;
    }
    let smaller = match dtype {
        Dtype::Q4K => Dtype::Q5_0,
        Dtype::Q5K => Dtype::Q5_1,
        Dtype::Q6K => Dtype::Q8_0,
        _ => Dtype::F16,
    };
    if divides(smaller) { smaller } else { Dtype::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(role: Role, layer: Option<u32>) -> Place {
        Place { role, layer, layers: 16, tied: false }
    }

    #[test]
    fn a_mixture_spends_bits_where_errors_cost_most() {
        let of = |role, layer| of_matrix(WeightType::Q4KM, place(role, layer), 256);
        let wide: Vec<u32> =
            (0..16).filter(|&layer| of(Role::Down, Some(layer)) == Dtype::Q6K).collect();
        assert_eq!(wide, [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!(of(Role::Query, Some(0)), Dtype::Q4K);
        assert_eq!(of(Role::Unembedding, None), Dtype::Q6K);
        assert_eq!(of(Role::Embedding, None), Dtype::Q4K);
    }

    #[test]
    fn rows_that_are_no_whole_blocks_get_the_next_type_that_has_room() {
        let of = |kind, columns| of_matrix(kind, place(Role::Query, Some(0)), columns);
        assert_eq!(of(WeightType::Q4K, 256), Dtype::Q4K);
        assert_eq!(of(WeightType::Q4K, 96), Dtype::Q5_0);
        assert_eq!(of(WeightType::Q6K, 96), Dtype::Q8_0);
        assert_eq!(of(WeightType::Q5K, 96), Dtype::Q5_1);
        assert_eq!(of(WeightType::Q8_0, 33), Dtype::F16);
        assert_eq!(of(WeightType::Q4K, 33), Dtype::F16);
        assert_eq!(of(WeightType::Bf16, 33), Dtype::BF16);
    }
}
