//! Whether the request whose turn it is may start: pure policy, no model.
//!
//! A request starts when there is a place among the running ones and there are pages for its prompt.
//! Nobody who came later starts before it, so it cannot starve. Where it does not fit, a sequence
//! whose client does not read gives way; and where somebody runs more than an equal share of the
//! places while the newcomer's principal has less, the youngest of its sequences does. Who gave way
//! keeps its turn and goes on later, with the same tokens.

/// A sequence that runs.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a, K> {
    /// Whose it is.
    pub principal: &'a K,
    /// Whether it waits for its reader.
    pub paused: bool,
}

/// What a newcomer finds.
#[derive(Debug, Clone, Copy)]
pub struct House<'a, K> {
    /// Those who run, oldest first.
    pub running: &'a [Running<'a, K>],
    /// Principals who have something waiting, the newcomer among them.
    pub waiting: &'a [&'a K],
    /// How many may run.
    pub places: usize,
    /// Pages that are free or can be made free without stopping a sequence.
    pub pages: usize,
}

/// What happens to the newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It starts.
    Start,
    /// It waits for somebody to end.
    Wait,
    /// This running sequence gives way; ask again.
    Preempt(usize),
}

/// Decides about a newcomer that needs `pages` pages for what it has to read.
pub fn admit<K: PartialEq>(newcomer: &K, pages: usize, house: &House<'_, K>) -> Verdict {
    let House { running, waiting, places, pages: available } = *house;
    // Each of those who run will soon ask for a page more. Who is alone takes what there is.
    let fits = running.is_empty() || pages.saturating_add(running.len()) <= available;
    if running.len() < places && fits {
        return Verdict::Start;
    }
    if let Some(index) = running.iter().rposition(|sequence| sequence.paused) {
        return Verdict::Preempt(index);
    }
    let count = |principal: &K| running.iter().filter(|each| each.principal == principal).count();
    let mut principals: Vec<&K> = Vec::new();
    for principal in running.iter().map(|each| each.principal).chain(waiting.iter().copied()) {
        if !principals.contains(&principal) {
            principals.push(principal);
        }
    }
    let share = (places / principals.len().max(1)).max(1);
    let greedy = principals.into_iter().max_by_key(|principal| count(principal));
    match greedy {
        Some(greedy) if count(greedy) > share && count(newcomer) < share => running
            .iter()
            .rposition(|sequence| sequence.principal == greedy)
            .map_or(Verdict::Wait, Verdict::Preempt),
        _ => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(
        running: &str,
        newcomer: char,
        needed: usize,
        places: usize,
        pages: usize,
    ) -> Verdict {
        // Upper case waits for its reader.
        let principals: Vec<char> = running.chars().map(|name| name.to_ascii_lowercase()).collect();
        let running: Vec<Running<'_, char>> = principals
            .iter()
            .zip(running.chars())
            .map(|(principal, name)| Running { principal, paused: name.is_ascii_uppercase() })
            .collect();
        admit(&newcomer, needed, &House { running: &running, waiting: &[&newcomer], places, pages })
    }

    #[test]
    fn who_fits_starts_and_who_does_not_waits() {
        assert_eq!(verdict("", 'a', 10, 4, 10), Verdict::Start);
        assert_eq!(verdict("a", 'a', 9, 4, 10), Verdict::Start);
        assert_eq!(verdict("a", 'a', 10, 4, 10), Verdict::Wait, "the running one needs a page");
        assert_eq!(verdict("aaaa", 'a', 1, 4, 10), Verdict::Wait);
        assert_eq!(verdict("", 'a', 11, 4, 10), Verdict::Start, "alone it takes what there is");
    }

    #[test]
    fn who_does_not_read_gives_way() {
        assert_eq!(verdict("aAaa", 'a', 1, 4, 10), Verdict::Preempt(1));
        assert_eq!(verdict("aA", 'a', 20, 4, 10), Verdict::Preempt(1));
        assert_eq!(verdict("aA", 'a', 1, 4, 10), Verdict::Start, "there is room for both");
    }

    #[test]
    fn who_has_more_than_a_share_gives_way_to_who_has_less() {
        assert_eq!(verdict("aaaa", 'b', 1, 4, 10), Verdict::Preempt(3));
        assert_eq!(verdict("abaa", 'b', 1, 4, 10), Verdict::Preempt(3));
        assert_eq!(verdict("aabb", 'b', 1, 4, 10), Verdict::Wait);
        assert_eq!(verdict("aabb", 'c', 1, 4, 10), Verdict::Preempt(3));
        assert_eq!(verdict("abcd", 'e', 1, 4, 10), Verdict::Wait, "one each");
        assert_eq!(verdict("aab", 'c', 20, 4, 10), Verdict::Preempt(1), "pages count as well");
    }

    #[test]
    fn giving_way_ends_in_equal_shares_and_is_not_given_back() {
        let mut running = vec!['a'; 8];
        for newcomer in ['b', 'b', 'b', 'b', 'c', 'c', 'c', 'a', 'b'] {
            let text: String = running.iter().collect();
            if let Verdict::Preempt(index) = verdict(&text, newcomer, 1, 8, 1000) {
                running.remove(index);
                running.push(newcomer);
            }
        }
        let count = |name| running.iter().filter(|&&each| each == name).count();
        assert_eq!((count('a'), count('b'), count('c')), (3, 3, 2));
    }
}
