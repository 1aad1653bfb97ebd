//! Two engines by turns.

/// One measurement by each engine, one right after the other.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub ours: f64,
    pub theirs: f64,
}

/// Measures by turns: A B, B A, A B, … so that neither engine profits from a drift of the machine.
pub fn alternate(
    pairs: usize,
    mut ours: impl FnMut() -> anyhow::Result<f64>,
    mut theirs: impl FnMut() -> anyhow::Result<f64>,
    mut tell: impl FnMut(Pair),
) -> anyhow::Result<Vec<Pair>> {
    let mut all = Vec::with_capacity(pairs);
    for index in 0..pairs {
        let pair = if index % 2 == 0 {
            let ours = ours()?;
            Pair { ours, theirs: theirs()? }
        } else {
            let theirs = theirs()?;
            Pair { ours: ours()?, theirs }
        };
        tell(pair);
        all.push(pair);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_alternate_and_neither_is_always_first() {
        let order = std::cell::RefCell::new(String::new());
        let note = |letter: char| {
            order.borrow_mut().push(letter);
            Ok(1.0)
        };
        let pairs = alternate(4, || note('A'), || note('B'), |_| ()).unwrap();
        assert_eq!((pairs.len(), order.borrow().as_str()), (4, "ABBAABBA"));
    }
}
