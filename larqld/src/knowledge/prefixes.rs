//! Prompts with common beginnings as a tree, so that a beginning is read once. Tokens only, no model.

use std::ops::Range;

/// Tokens that sharing a beginning must save: a pass of few rows costs as much as some more rows.
const SAVED_MIN: usize = 8;

/// A run of tokens that comes after its parent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What comes before; none at the beginning of a prompt.
    pub parent: Option<usize>,
    /// How many come before.
    pub depth: usize,
    /// A prompt that the tokens stand in.
    pub prompt: usize,
    /// Where they stand in it.
    pub tokens: Range<usize>,
    /// The prompts that end with them.
    pub ends: Vec<usize>,
}

/// The nodes of prompts, parents before their children. An empty prompt has none.
pub fn tree(prompts: &[&[u32]]) -> Vec<Node> {
    let mut order: Vec<usize> =
        (0..prompts.len()).filter(|&prompt| !prompts[prompt].is_empty()).collect();
    order.sort_by(|&a, &b| prompts[a].cmp(prompts[b]).then(a.cmp(&b)));
    let mut nodes = Vec::new();
    grow(prompts, &order, (0, None, 0), &mut nodes);
    nodes
}

/// Adds the nodes of sorted prompts that agree before `start`, where `parent` ends.
fn grow(
    prompts: &[&[u32]],
    order: &[usize],
    (start, parent, depth): (usize, Option<usize>, usize),
    nodes: &mut Vec<Node>,
) {
    let (Some(&first), Some(&last)) = (order.first(), order.last()) else { return };
    // What the first and the last of sorted prompts share, all between them share.
    let same = prompts[first].iter().zip(prompts[last]).take_while(|(a, b)| a == b).count();
    let ends = order.partition_point(|&prompt| prompts[prompt].len() == same);
    let mut begin = (start, parent, depth);
    let all_end = ends == order.len();
    if all_end || (same > start && (order.len() - 1) * (same - start) >= SAVED_MIN) {
        let ends = order[..ends].to_vec();
        nodes.push(Node { parent, depth, prompt: first, tokens: start..same, ends });
        begin = (same, Some(nodes.len() - 1), depth + 1);
    } else if ends > 0 {
        grow(prompts, &order[..ends], begin, nodes);
    }
    for group in order[ends..].chunk_by(|&a, &b| prompts[a][same] == prompts[b][same]) {
        grow(prompts, group, begin, nodes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of a prompt, put together from the tree.
    fn read(prompts: &[&[u32]], nodes: &[Node], prompt: usize) -> Vec<u32> {
        let mut parts = Vec::new();
        let mut at = nodes.iter().position(|node| node.ends.contains(&prompt));
        while let Some(node) = at.map(|at| &nodes[at]) {
            parts.push(&prompts[node.prompt][node.tokens.clone()]);
            at = node.parent;
        }
        parts.into_iter().rev().flatten().copied().collect()
    }

    #[test]
    fn every_prompt_is_found_again_and_common_beginnings_are_read_once() {
        let long: Vec<Vec<u32>> = (0..9)
            .map(|i| [&[1, 2, 3, 4, 5][..], &vec![6; i / 3], &[10 + i as u32]].concat())
            .collect();
        let mut prompts: Vec<&[u32]> = long.iter().map(Vec::as_slice).collect();
        prompts.extend([&[1, 2, 3][..], &[], &[7], &[1, 2, 3], &[1, 2, 3, 4, 5]]);
        let nodes = tree(&prompts);
        for (index, prompt) in prompts.iter().enumerate() {
            assert_eq!(read(&prompts, &nodes, index), *prompt, "{index}");
        }
        assert!(nodes.iter().enumerate().all(|(at, node)| node.parent.is_none_or(|p| p < at)));
        assert!(nodes.iter().all(|node| !node.tokens.is_empty()));
        let read: usize = nodes.iter().map(|node| node.tokens.len()).sum();
        let given: usize = prompts.iter().map(|prompt| prompt.len()).sum();
        assert!(read * 2 < given, "{read} of {given}");
    }

    #[test]
    fn what_saves_little_is_not_shared() {
        let nodes = tree(&[&[1, 2, 3], &[1, 2, 4]]);
        assert_eq!(nodes.len(), 2);
        assert!(nodes.iter().all(|node| node.parent.is_none() && node.tokens == (0..3)));
        assert_eq!(tree(&[&[], &[]]), []);
    }
}
