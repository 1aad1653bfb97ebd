//! Bands: which layers handle form, which hold knowledge, and which prepare the output.
//!
//! A heuristic, kept from the ancestor so that its users find the ranges they know: observed splits
//! for some families and depths, fifths of the depth for the others, none for shallow models.

/// Ranges of layers, first and last, both included; together they cover every layer once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bands {
    /// Layers that mostly handle form.
    pub syntax: (usize, usize),
    /// Layers that mostly hold knowledge.
    pub knowledge: (usize, usize),
    /// Layers that mostly prepare the output.
    pub output: (usize, usize),
}

/// Fewest layers that are worth splitting.
const LAYERS_MIN: usize = 8;

/// Family, layers, last layer of the syntax band, last layer of the knowledge band.
const OBSERVED: [(&str, usize, usize, usize); 5] = [
    ("gemma3", 34, 13, 27),
    ("gemma3", 42, 16, 34),
    ("llama", 32, 12, 25),
    ("llama", 40, 16, 32),
    ("llama", 80, 31, 63),
];

impl Bands {
    /// The bands of a family at a depth, or `None` under eight layers.
    pub(super) fn of(family: &str, layers: usize) -> Option<Bands> {
        if layers < LAYERS_MIN {
            return None;
        }
        let observed = OBSERVED.iter().find(|row| row.0 == family && row.1 == layers);
        let (syntax, knowledge) = match observed {
            Some(&(_, _, syntax, knowledge)) => (syntax, knowledge),
            None => (layers * 2 / 5 - 1, layers * 4 / 5 - 1),
        };
        Some(Bands {
            syntax: (0, syntax),
            knowledge: (syntax + 1, knowledge),
            output: (knowledge + 1, layers - 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_every_layer_once_at_any_depth() {
        for layers in LAYERS_MIN..200 {
            let Bands { syntax, knowledge, output } = Bands::of("llama", layers).unwrap();
            assert_eq!((syntax.0, output.1), (0, layers - 1));
            assert_eq!((knowledge.0, output.0), (syntax.1 + 1, knowledge.1 + 1));
            assert!(knowledge.0 <= knowledge.1 && output.0 <= output.1);
        }
    }

    #[test]
    fn observed_splits_win_over_fifths_and_shallow_models_have_none() {
        assert_eq!(Bands::of("gemma3", 34).unwrap().knowledge, (14, 27));
        assert_eq!(Bands::of("llama", 34).unwrap().knowledge, (13, 26));
        assert_eq!(Bands::of("gemma3", 7), None);
    }
}
