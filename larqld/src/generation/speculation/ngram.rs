//! Guessing from the text itself: what followed when the last few tokens came before.
//!
//! Source: prompt lookup decoding (Saxena 2023), here over prompt and answer, the longest and then
//! the latest match first.

use std::collections::HashMap;
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};

use super::Proposer;
use crate::failure::Failure;

/// Tokens of a match, longest first.
const LENGTHS: [usize; 3] = [4, 3, 2];
const LONGEST: usize = LENGTHS[0];

/// Where each run of a few tokens ended last.
#[derive(Debug, Default)]
pub struct NgramLookup {
    /// The position after each run, by the run, shorter ones filled up with `u32::MAX`.
    after: HashMap<[u32; LONGEST], usize>,
    /// Ends of runs that are in the map.
    seen: usize,
}

impl NgramLookup {
    /// The guess for what follows `tokens`.
    fn guess<'t>(&mut self, tokens: &'t [u32], most: usize) -> &'t [u32] {
        // The run at the very end has nothing behind it yet.
        for end in self.seen.max(1)..tokens.len() {
            for length in LENGTHS {
                self.after.extend(run(&tokens[..end], length).map(|run| (run, end)));
            }
        }
        self.seen = tokens.len();
        let found = LENGTHS
            .iter()
            .filter_map(|&length| self.after.get(&run(tokens, length)?))
            .find(|&&start| start < tokens.len());
        let Some(&start) = found else { return &[] };
        &tokens[start..tokens.len().min(start + most)]
    }
}

/// The last tokens as a key.
fn run(tokens: &[u32], length: usize) -> Option<[u32; LONGEST]> {
    let mut key = [u32::MAX; LONGEST];
    key[..length].copy_from_slice(&tokens[tokens.len().checked_sub(length)?..]);
    Some(key)
}

impl Proposer for NgramLookup {
    fn propose(
        &mut self,
        tokens: &[u32],
        most: usize,
        _: &Arc<Pool>,
        _: &Cancel,
    ) -> Result<Vec<u32>, Failure> {
        Ok(self.guess(tokens, most).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_latest_match_is_guessed() {
        let mut lookup = NgramLookup::default();
        assert_eq!(lookup.guess(&[1, 2, 3, 9], 4), &[0; 0]);
        assert_eq!(lookup.guess(&[1, 2, 3, 9, 8, 2, 3], 4), [9, 8, 2, 3]);
        assert_eq!(lookup.guess(&[1, 2, 3, 9, 8, 2, 3], 2), [9, 8]);
        // Three tokens that match count before the later two.
        assert_eq!(lookup.guess(&[1, 2, 3, 9, 8, 2, 3, 7, 1, 2, 3], 1), [9]);
        // Of equal ones the later.
        let tokens = [5, 6, 1, 5, 6, 2, 5, 6];
        assert_eq!(NgramLookup::default().guess(&tokens, 1), [2]);
    }

    #[test]
    fn asking_step_by_step_and_at_once_guess_the_same() {
        let tokens: Vec<u32> = (0..200_u32).map(|i| (i * i / 7) % 5).collect();
        let mut stepwise = NgramLookup::default();
        for end in 1..=tokens.len() {
            let at_once = NgramLookup::default().guess(&tokens[..end], 6).to_vec();
            assert_eq!(stepwise.guess(&tokens[..end], 6), at_once, "after {end}");
        }
    }

    #[test]
    fn short_texts_have_no_guess() {
        for length in 0..3 {
            assert_eq!(NgramLookup::default().guess(&[7; 3][..length], 4).len(), 0, "{length}");
        }
    }
}
