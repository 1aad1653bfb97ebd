//! Which tokens of which sequences make up the next step: pure policy, no model.
//!
//! Sequences come in the order in which they were started, oldest first. In every step
//!
//! * each sequence that decodes goes on by its pending token (and what is proposed after it);
//! * prompts share a budget of tokens: `prefill_tokens_max`, or a quarter of it while somebody decodes,
//!   so that a long prompt slows others' tokens by a bounded number of rows;
//! * the oldest sequence goes on in any case: where pages of keys and values are short, others give
//!   theirs up (paused ones first, then the youngest) and are computed again later.
//!
//! **Bound.** Half of the prompts' budget goes round in quanta of `q` = [`QUANTUM`] tokens (or half the
//! budget, where that is less), the other half to prompts in the order of their start. Among `n`
//! prompts, `k = max(1, budget / 2 / QUANTUM)` get a quantum in each step, so a prompt of `p` tokens
//! is read after at most `ceil(p / q) * ceil(n / k)` steps, however long the others are (while pages
//! last).

/// Tokens that a prompt gets when its turn comes.
pub const QUANTUM: usize = 32;
/// The part of the budget that prompts get while somebody decodes.
const SHARE_BESIDE_DECODE: usize = 4;

/// A sequence that has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Positions that its cache holds.
    pub cached: usize,
    /// Tokens that it could feed.
    pub tokens: usize,
    /// Whether these are the pending token and proposals, which go together or not at all.
    pub decodes: bool,
    /// Whether it waits for its reader.
    pub paused: bool,
    /// The step in which it last got a quantum.
    pub served: u64,
}

/// What a step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pages that are free or can be made free without stopping a sequence.
    pub pages: usize,
    /// Positions of a page.
    pub page_positions: usize,
    /// Tokens of prompts in one step, at least one.
    pub prefill_tokens_max: usize,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Feed so many tokens of these candidates.
    Feed(Vec<Feed>),
    /// Take this candidate's pages away and plan again.
    Preempt(usize),
}

/// A candidate's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// Which candidate.
    pub index: usize,
    /// How many of its tokens, at least one.
    pub tokens: usize,
    /// Whether that was its turn's quantum.
    pub quantum: bool,
}

/// Pages that `positions` take.
pub fn pages(positions: usize, page_positions: usize) -> usize {
    positions.div_ceil(page_positions)
}

/// The size of a quantum, and how many of them a step has.
fn quanta(budget: usize) -> (usize, usize) {
    let half = (budget / 2).max(1);
    (QUANTUM.min(half), (half / QUANTUM).max(1))
}

/// Plans one step.
pub fn plan(candidates: &[Candidate], limits: Limits) -> Plan {
    let Some(oldest) = candidates.iter().position(|candidate| !candidate.paused) else {
        return Plan::Feed(Vec::new());
    };
    let mut step = Step { candidates, limits, feeds: Vec::new(), pages: limits.pages };
    let decoding = |(_, candidate): &(usize, &Candidate)| candidate.decodes && !candidate.paused;
    for (index, candidate) in candidates.iter().enumerate().filter(decoding) {
        if step.room(index) < candidate.tokens {
            return step.preempt(index);
        }
        step.feed(index, candidate.tokens, false);
    }
    let share = if step.feeds.is_empty() { 1 } else { SHARE_BESIDE_DECODE };
    let mut budget = (limits.prefill_tokens_max / share).max(1);
    let (quantum, turns) = quanta(budget);
    let mut prompts: Vec<usize> = (0..candidates.len())
        .filter(|&index| !candidates[index].decodes && !candidates[index].paused)
        .collect();
    if prompts.first() == Some(&oldest) && step.room(oldest) == 0 {
        return step.preempt(oldest);
    }
    prompts.sort_by_key(|&index| (candidates[index].served, index));
    for &index in prompts.iter().take(turns) {
        budget -= step.feed(index, quantum.min(budget), true);
    }
    prompts.sort_unstable();
    for &index in &prompts {
        budget -= step.feed(index, budget, false);
    }
    step.feeds.sort_by_key(|feed| feed.index);
    Plan::Feed(step.feeds)
}

/// A step that is being put together.
struct Step<'c> {
    candidates: &'c [Candidate],
    limits: Limits,
    feeds: Vec<Feed>,
    /// Pages that are left.
    pages: usize,
}

impl Step<'_> {
    /// Tokens of a candidate for which there are pages, beyond what it feeds already.
    fn room(&self, index: usize) -> usize {
        let size = self.limits.page_positions;
        let positions = self.candidates[index].cached + self.fed(index);
        let in_last_page = pages(positions, size) * size - positions;
        in_last_page.saturating_add(self.pages.saturating_mul(size))
    }

    fn fed(&self, index: usize) -> usize {
        self.feeds.iter().find(|feed| feed.index == index).map_or(0, |feed| feed.tokens)
    }

    /// Feeds up to `most` more tokens of a candidate, and returns how many.
    fn feed(&mut self, index: usize, most: usize, quantum: bool) -> usize {
        let (fed, candidate) = (self.fed(index), &self.candidates[index]);
        let tokens = most.min(candidate.tokens - fed).min(self.room(index));
        if tokens == 0 {
            return 0;
        }
        let size = self.limits.page_positions;
        let positions = candidate.cached + fed;
        self.pages -= pages(positions + tokens, size) - pages(positions, size);
        match self.feeds.iter_mut().find(|feed| feed.index == index) {
            Some(feed) => {
                feed.tokens += tokens;
                feed.quantum |= quantum;
            }
            None => self.feeds.push(Feed { index, tokens, quantum }),
        }
        tokens
    }

    /// Who gives up its pages so that `needy` can go on: a paused sequence, or else the youngest
    /// (`needy` itself, perhaps). Nobody, where `needy` is alone: then it cannot go on.
    fn preempt(&self, needy: usize) -> Plan {
        let holds = |index: &usize| self.candidates[*index].cached > 0;
        let paused = |index: &usize| self.candidates[*index].paused && holds(index);
        let last = self.candidates.len() - 1;
        let victim = (0..=last).rev().find(paused);
        let victim =
            victim.or_else(|| (needy..=last).rev().find(|index| *index == needy || holds(index)));
        match victim {
            Some(victim) if last > 0 => Plan::Preempt(victim),
            _ => Plan::Feed(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bound of the module's text.
    fn prefill_steps_max(tokens: usize, prompts: usize, budget: usize) -> usize {
        let (quantum, turns) = quanta(budget);
        tokens.div_ceil(quantum) * prompts.div_ceil(turns)
    }

    const LIMITS: Limits = Limits { pages: 1000, page_positions: 32, prefill_tokens_max: 256 };

    fn decode(cached: usize) -> Candidate {
        Candidate { cached, tokens: 1, decodes: true, paused: false, served: 0 }
    }

    fn prompt(tokens: usize) -> Candidate {
        Candidate { cached: 0, tokens, decodes: false, paused: false, served: 0 }
    }

    fn fed(plan: Plan) -> Vec<(usize, usize)> {
        match plan {
            Plan::Feed(feeds) => feeds.iter().map(|feed| (feed.index, feed.tokens)).collect(),
            Plan::Preempt(index) => panic!("{index} is preempted"),
        }
    }

    #[test]
    fn a_prompt_alone_gets_the_whole_budget() {
        assert_eq!(fed(plan(&[prompt(1000)], LIMITS)), [(0, 256)]);
        assert_eq!(fed(plan(&[prompt(100)], LIMITS)), [(0, 100)]);
    }

    #[test]
    fn every_decode_goes_on_beside_a_quarter_of_the_budget() {
        let candidates = [prompt(1000), decode(50), decode(7)];
        assert_eq!(fed(plan(&candidates, LIMITS)), [(0, 64), (1, 1), (2, 1)]);
    }

    #[test]
    fn a_short_prompt_is_not_behind_a_long_one() {
        let candidates = [prompt(100_000), prompt(20), prompt(30)];
        assert_eq!(fed(plan(&candidates, LIMITS)), [(0, 206), (1, 20), (2, 30)]);
    }

    #[test]
    fn a_paused_sequence_is_left_out_and_gives_up_its_pages_first() {
        let paused = Candidate { paused: true, ..decode(64) };
        assert_eq!(fed(plan(&[paused, decode(3)], LIMITS)), [(1, 1)]);
        let none = Limits { pages: 0, ..LIMITS };
        assert_eq!(plan(&[paused, decode(64), decode(64)], none), Plan::Preempt(0));
        assert_eq!(plan(&[paused], none), Plan::Feed(Vec::new()));
    }

    #[test]
    fn the_youngest_gives_way_where_pages_are_short() {
        let none = Limits { pages: 0, ..LIMITS };
        assert_eq!(plan(&[decode(64), decode(33), decode(5)], none), Plan::Preempt(2));
        assert_eq!(fed(plan(&[decode(63), decode(33)], none)), [(0, 1), (1, 1)]);
        assert_eq!(plan(&[prompt(10), decode(33)], none), Plan::Preempt(1));
        // It takes its own pages away rather than those of older ones.
        assert_eq!(plan(&[decode(33), decode(64)], none), Plan::Preempt(1));
        // Alone it could not go on at all; whoever started it should not have.
        assert_eq!(plan(&[decode(64)], none), Plan::Feed(Vec::new()));
    }

    #[test]
    fn a_prompt_takes_as_many_tokens_as_there_are_pages() {
        let two = Limits { pages: 2, ..LIMITS };
        assert_eq!(fed(plan(&[prompt(1000)], two)), [(0, 64)]);
        let begun = Candidate { cached: 40, ..prompt(1000) };
        assert_eq!(fed(plan(&[begun], two)), [(0, 24 + 64)]);
        // Pages that the older one took are not there for the younger.
        assert_eq!(fed(plan(&[prompt(1000), prompt(1000)], two)), [(0, 32), (1, 32)]);
    }

    /// Runs prompts to their ends; returns after how many steps each was read.
    fn run(lengths: &[usize], budget: usize) -> Vec<usize> {
        let limits = Limits { pages: usize::MAX / 64, prefill_tokens_max: budget, ..LIMITS };
        let mut candidates: Vec<(usize, Candidate)> =
            lengths.iter().map(|&tokens| prompt(tokens)).enumerate().collect();
        let mut ends = vec![0; lengths.len()];
        for step in 1.. {
            let planned: Vec<Candidate> = candidates.iter().map(|(_, each)| *each).collect();
            let Plan::Feed(feeds) = plan(&planned, limits) else { panic!("pages are plenty") };
            assert!(feeds.iter().map(|feed| feed.tokens).sum::<usize>() <= budget);
            for feed in feeds {
                let (id, candidate) = &mut candidates[feed.index];
                candidate.cached += feed.tokens;
                candidate.tokens -= feed.tokens;
                if feed.quantum {
                    candidate.served = step as u64;
                }
                ends[*id] = step;
            }
            candidates.retain(|(_, candidate)| candidate.tokens > 0);
            if candidates.is_empty() {
                break;
            }
        }
        ends
    }

    proptest! {
        #[test]
        fn a_prompt_is_read_within_the_stated_number_of_steps(
            lengths in prop::collection::vec(1_usize..3000, 1..20),
            budget in 1_usize..600,
        ) {
            let ends = run(&lengths, budget);
            for (&tokens, end) in lengths.iter().zip(ends) {
                let bound = prefill_steps_max(tokens, lengths.len(), budget);
                prop_assert!(end <= bound, "{tokens} tokens took {end} steps, bound {bound}");
            }
        }

        #[test]
        fn a_step_never_takes_more_pages_than_there_are_and_somebody_goes_on(
            candidates in prop::collection::vec(
                (0_usize..200, 1_usize..300, any::<bool>(), any::<bool>(), 0_u64..5),
                1..12,
            ),
            free in 0_usize..20,
        ) {
            let mut candidates: Vec<Candidate> = candidates
                .into_iter()
                .map(|(cached, tokens, decodes, paused, served)| {
                    let tokens = if decodes { 1 + tokens % 4 } else { tokens };
                    Candidate { cached, tokens, decodes, paused, served }
                })
                .collect();
            let mut limits = Limits { pages: free, ..LIMITS };
            // As the runner does it: preempt and plan again, until something can be fed.
            let feeds = loop {
                match plan(&candidates, limits) {
                    Plan::Feed(feeds) => break feeds,
                    Plan::Preempt(index) => {
                        limits.pages += pages(candidates.remove(index).cached, 32);
                    }
                }
            };
            let taken: usize = feeds
                .iter()
                .map(|feed| {
                    let Candidate { cached, tokens, decodes, paused, .. } = candidates[feed.index];
                    assert!(feed.tokens >= 1 && feed.tokens <= tokens && !paused);
                    assert!(!decodes || feed.tokens == tokens);
                    pages(cached + feed.tokens, 32) - pages(cached, 32)
                })
                .sum();
            prop_assert!(taken <= limits.pages);
            let ready = candidates.iter().filter(|candidate| !candidate.paused).count();
            let stuck = candidates.len() == 1 && limits.pages == 0;
            prop_assert!(ready == 0 || !feeds.is_empty() || stuck);
        }
    }
}
