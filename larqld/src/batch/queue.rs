//! Requests that wait for a place: bounded, and fair between those who ask.
//!
//! Each principal has a line of its own, first come, first served; the lines take turns. So whoever
//! asks for much waits for its own requests and not for those of others.
//!
//! The queue is bounded as a whole. When it is full, the longest line pays: a newcomer whose line is
//! shorter takes the place of the longest line's last request, any other newcomer is refused.
//! Requests that come back ([`FairQueue::push_front`]) had a place before and are never refused.

use std::collections::VecDeque;

/// Lines of requests, one a principal, that take turns.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    /// In the order of their turns, none of them empty.
    lines: VecDeque<(K, VecDeque<T>)>,
    length: usize,
    length_max: usize,
}

/// What became of a request that asked for a place in the queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed<T> {
    /// It waits.
    Queued,
    /// It waits in the place of this one, the last of the longest line.
    Displaced(T),
    /// The queue is full.
    Refused(T),
}

impl<K: PartialEq + Clone, T> FairQueue<K, T> {
    /// An empty queue of at most `length_max` requests.
    pub fn new(length_max: usize) -> Self {
        Self { lines: VecDeque::new(), length: 0, length_max }
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Puts a request at the end of its principal's line.
    pub fn push(&mut self, principal: &K, item: T) -> Pushed<T> {
        let mut pushed = Pushed::Queued;
        if self.length >= self.length_max {
            let own = self.line(principal).map_or(0, VecDeque::len);
            let longest = self.lines.iter_mut().max_by_key(|(_, line)| line.len());
            match longest {
                // Longer by two: after the exchange the newcomer's line is not the longest.
                Some((_, line)) if line.len() > own + 1 => {
                    self.length -= 1;
                    pushed = line.pop_back().map_or(Pushed::Queued, Pushed::Displaced);
                }
                _ => return Pushed::Refused(item),
            }
        }
        self.line_or_new(principal).push_back(item);
        self.length += 1;
        pushed
    }

    /// Puts a request that already had a place at the head of its principal's line.
    pub fn push_front(&mut self, principal: &K, item: T) {
        self.line_or_new(principal).push_front(item);
        self.length += 1;
    }

    /// The request whose turn it is.
    pub fn peek(&self) -> Option<(&K, &T)> {
        self.lines.front().and_then(|(principal, line)| Some((principal, line.front()?)))
    }

    /// Takes the request whose turn it is; its principal's next one waits for the other lines.
    pub fn pop(&mut self) -> Option<(K, T)> {
        let (principal, mut line) = self.lines.pop_front()?;
        let item = line.pop_front()?;
        self.length -= 1;
        if !line.is_empty() {
            self.lines.push_back((principal.clone(), line));
        }
        Some((principal, item))
    }

    /// Takes out every request for which `wanted` holds.
    pub fn take_if(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (_, line) in &mut self.lines {
            // Most of the time nothing is taken, and nothing is moved.
            if line.iter().any(&mut wanted) {
                let (out, kept): (VecDeque<T>, VecDeque<T>) =
                    std::mem::take(line).into_iter().partition(|item| wanted(item));
                taken.extend(out);
                *line = kept;
            }
        }
        self.lines.retain(|(_, line)| !line.is_empty());
        self.length -= taken.len();
        taken
    }

    /// Those who wait, in the order of their turns.
    pub fn principals(&self) -> impl Iterator<Item = &K> {
        self.lines.iter().map(|(principal, _)| principal)
    }

    fn line(&self, principal: &K) -> Option<&VecDeque<T>> {
        self.lines.iter().find(|(other, _)| other == principal).map(|(_, line)| line)
    }

    fn line_or_new(&mut self, principal: &K) -> &mut VecDeque<T> {
        let found = self.lines.iter().position(|(other, _)| other == principal);
        let index = found.unwrap_or_else(|| {
            self.lines.push_back((principal.clone(), VecDeque::new()));
            self.lines.len() - 1
        });
        &mut self.lines[index].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(queue: &mut FairQueue<char, u32>) -> Vec<(char, u32)> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn principals_take_turns_and_each_is_served_in_its_own_order() {
        let mut queue = FairQueue::new(100);
        for number in 0..4 {
            queue.push(&'a', number);
        }
        queue.push(&'b', 10);
        queue.push(&'b', 11);
        queue.push(&'c', 20);
        assert_eq!(queue.peek(), Some((&'a', &0)));
        assert_eq!(
            popped(&mut queue),
            [('a', 0), ('b', 10), ('c', 20), ('a', 1), ('b', 11), ('a', 2), ('a', 3)]
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn a_newcomer_waits_for_at_most_one_request_of_each_other_principal() {
        let mut queue = FairQueue::new(100);
        for number in 0..50 {
            queue.push(&'a', number);
        }
        queue.pop();
        queue.push(&'b', 99);
        assert_eq!(queue.pop(), Some(('a', 1)));
        assert_eq!(queue.pop(), Some(('b', 99)));
    }

    #[test]
    fn a_full_queue_refuses_who_has_most_and_makes_room_for_who_has_less() {
        let mut queue = FairQueue::new(4);
        for number in 0..4 {
            assert_eq!(queue.push(&'a', number), Pushed::Queued);
        }
        assert_eq!(queue.push(&'a', 4), Pushed::Refused(4));
        assert_eq!(queue.push(&'b', 10), Pushed::Displaced(3));
        assert_eq!(queue.push(&'b', 11), Pushed::Displaced(2));
        assert_eq!(queue.push(&'b', 12), Pushed::Refused(12), "both have the same");
        assert_eq!(queue.push(&'c', 20), Pushed::Displaced(11), "one of the longest pays");
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn a_request_that_comes_back_is_first_in_its_line_and_never_refused() {
        let mut queue = FairQueue::new(1);
        queue.push(&'a', 1);
        queue.push_front(&'a', 0);
        assert_eq!(queue.len(), 2);
        assert_eq!(popped(&mut queue), [('a', 0), ('a', 1)]);
    }

    #[test]
    fn requests_are_taken_out_wherever_they_stand() {
        let mut queue = FairQueue::new(100);
        for number in 0..6 {
            queue.push(if number % 2 == 0 { &'a' } else { &'b' }, number);
        }
        assert_eq!(queue.take_if(|&number| number > 2), [4, 3, 5]);
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.take_if(|&number| number == 1), [1], "a line may become empty");
        assert_eq!(queue.principals().collect::<Vec<_>>(), [&'a']);
        assert_eq!(popped(&mut queue), [('a', 0), ('a', 2)]);
    }
}
