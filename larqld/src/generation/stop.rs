//! Stop strings: what a text may show while it may still be the beginning of one.

use std::collections::VecDeque;

use super::TokenEvent;

/// Holds tokens back for as long as their text may belong to a stop string.
///
/// A token is given out once nothing of its text can be part of a stop string any more. When a stop
/// string comes, the tokens that begin before it are given out with their text up to it; those that
/// begin within it never are. What is given out is so exactly the text before the stop string, and
/// the tokens that it came from.
#[derive(Debug)]
pub(super) struct StopFilter {
    stops: Vec<String>,
    held: VecDeque<TokenEvent>,
}

impl StopFilter {
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: VecDeque::new() }
    }

    /// Takes a token; moves those that may be given out to `out`. True when a stop string came,
    /// after which the filter is empty.
    pub(super) fn push(&mut self, event: TokenEvent, out: &mut Vec<TokenEvent>) -> bool {
        self.held.push_back(event);
        if self.stops.is_empty() {
            self.release(out);
            return false;
        }
        let text: String = self.held.iter().map(|event| event.text.as_str()).collect();
        let first = self.stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
        if let Some(at) = first {
            self.cut(at, out);
            return true;
        }
        let begins_stop = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&text[*at..]));
        let safe = text.char_indices().map(|(at, _)| at).find(begins_stop).unwrap_or(text.len());
        let mut end = 0;
        while let Some(event) = self.held.front() {
            end += event.text.len();
            if end > safe {
                break;
            }
            out.extend(self.held.pop_front());
        }
        false
    }

    /// Gives out what is held: no more text comes.
    pub(super) fn release(&mut self, out: &mut Vec<TokenEvent>) {
        out.extend(self.held.drain(..));
    }

    fn cut(&mut self, at: usize, out: &mut Vec<TokenEvent>) {
        let mut start = 0;
        for mut event in self.held.drain(..) {
            if start >= at {
                break;
            }
            let length = event.text.len();
            event.text.truncate(at - start);
            start += length;
            out.push(event);
        }
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut out = Vec::new();
        let mut stopped = false;
        for piece in pieces {
            stopped = filter.push(TokenEvent::text((*piece).to_owned()), &mut out);
            if stopped {
                break;
            }
        }
        filter.release(&mut out);
        (out.into_iter().map(|event| event.text).collect(), stopped)
    }

    #[test]
    fn a_stop_string_that_comes_in_pieces_is_found_and_not_given_out() {
        let (text, stopped) = filtered(&["STOP"], &["ab", "S", "TO", "P", "cd"]);
        assert_eq!((text.concat().as_str(), stopped), ("ab", true));
        let (text, stopped) = filtered(&["\n\n"], &["a\n", "b\n", "\nc"]);
        assert_eq!((text.concat().as_str(), stopped), ("a\nb", true));
    }

    #[test]
    fn text_that_only_begins_like_a_stop_string_is_given_out_in_the_end() {
        for (stops, pieces, whole) in [
            (&["STOP"][..], &["ab", "ST", "x"][..], "abSTx"),
            (&["STOP"], &["ab", "ST"], "abST"),
            (&[], &["é", "日"], "é日"),
            (&["日x"], &["é", "日"], "é日"),
        ] {
            let (text, stopped) = filtered(stops, pieces);
            assert_eq!((text.concat().as_str(), stopped), (whole, false));
        }
    }

    #[test]
    fn the_first_of_several_stop_strings_counts() {
        let (text, stopped) = filtered(&["c", "b"], &["abc"]);
        assert_eq!((text.concat().as_str(), stopped), ("a", true));
    }

    #[test]
    fn the_tokens_given_out_are_those_whose_text_begins_before_the_stop_string() {
        assert_eq!(
            filtered(&["STOP"], &["one ", "two S", "TO", "P!"]).0,
            ["one ", "two "],
            "the token in which it begins is cut, those within are dropped"
        );
        assert_eq!(filtered(&["STOP"], &["a", "", "b"]).0, ["a", "", "b"], "none is lost");
    }
}
