//! Which pages of keys and values are already computed for the beginning of a prompt.
//!
//! A page holds what the model remembers of [`PAGE_POSITIONS`](larql_compute::model::PAGE_POSITIONS)
//! tokens, and depends on those and on every token before them. So pages form a tree for each
//! [`Namespace`]: below its root the pages of first tokens, below each page those of the tokens that
//! followed. A child is found by its parent and by its tokens themselves, compared one by one: a
//! collision of hashes cannot give somebody the memory of another text.
//!
//! Pages are dropped least recently used first, and only those below which there are none: a chain
//! never has a gap. Whoever uses a page of a chain used its parents at the same moment, so a parent is
//! never older than its children.
//!
//! Elsewhere: pages and their memory (`compute::model::KvPages`), when they are dropped (`runner`).

use std::collections::{BTreeSet, HashMap};

use crate::session::Principal;

/// Whose pages these are, and of what: nothing is shared across any of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// Who asked. Another caller's prompts must not be guessed from how soon an answer comes.
    pub principal: Principal,
    /// The weights.
    pub base_hash: String,
    /// The branch of edits above them.
    pub branch: String,
    /// The edits themselves, by the last one's log sequence number.
    pub lsn: u64,
}

/// A page that can be held by several.
pub trait Page: Clone {
    /// Whether somebody beside this holder has the page, so that dropping it frees nothing.
    fn is_shared(&self) -> bool;
}

/// Pages by the tokens that they stand for.
#[derive(Debug)]
pub struct PrefixIndex<P> {
    /// Tokens of a page.
    page_tokens: usize,
    roots: HashMap<Namespace, NodeId>,
    children: HashMap<(NodeId, Box<[u32]>), NodeId>,
    nodes: HashMap<NodeId, Node<P>>,
    /// Nodes without children that hold a page, by when they were last used.
    leaves: BTreeSet<(u64, NodeId)>,
    next_node: NodeId,
    /// Counts uses.
    now: u64,
}

type NodeId = u64;

#[derive(Debug)]
struct Node<P> {
    /// None for a root.
    page: Option<(P, NodeId, Box<[u32]>)>,
    children: usize,
    last_used: u64,
}

impl<P: Page> PrefixIndex<P> {
    /// An empty index of pages of so many tokens, at least one.
    pub fn new(page_tokens: usize) -> Self {
        Self {
            page_tokens: page_tokens.max(1),
            roots: HashMap::new(),
            children: HashMap::new(),
            nodes: HashMap::new(),
            leaves: BTreeSet::new(),
            next_node: 0,
            now: 0,
        }
    }

    /// Pages held.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Pages that nobody else holds: what dropping all of them would free.
    pub fn reclaimable(&self) -> usize {
        let unshared = |node: &&Node<P>| node.page.as_ref().is_some_and(|page| !page.0.is_shared());
        self.nodes.values().filter(unshared).count()
    }

    /// The pages for the longest beginning of `tokens` that is known, in order. Marks them as used.
    pub fn find(&mut self, namespace: &Namespace, tokens: &[u32]) -> Vec<P> {
        self.now += 1;
        let Some(&root) = self.roots.get(namespace) else { return Vec::new() };
        let (mut at, mut pages) = (root, Vec::new());
        for tokens in tokens.chunks_exact(self.page_tokens) {
            let Some(&child) = self.children.get(&(at, tokens.into())) else { break };
            at = child;
            self.touch(at);
            pages.extend(self.nodes[&at].page.as_ref().map(|(page, ..)| page.clone()));
        }
        pages
    }

    /// Remembers pages: `pages[i]` stands for the `i`th whole page of `tokens`. Of two for the same
    /// tokens the first stays.
    pub fn insert(&mut self, namespace: &Namespace, tokens: &[u32], pages: &[P]) {
        self.now += 1;
        if pages.is_empty() || tokens.len() < self.page_tokens {
            return;
        }
        let mut at = match self.roots.get(namespace) {
            Some(&root) => root,
            None => {
                let root = self.add(None);
                self.roots.insert(namespace.clone(), root);
                root
            }
        };
        for (tokens, page) in tokens.chunks_exact(self.page_tokens).zip(pages) {
            let key: (NodeId, Box<[u32]>) = (at, tokens.into());
            at = match self.children.get(&key) {
                Some(&child) => child,
                None => {
                    let (parent, tokens) = key.clone();
                    let child = self.add(Some((page.clone(), parent, tokens)));
                    self.children.insert(key, child);
                    if let Some(parent_node) = self.nodes.get_mut(&parent) {
                        parent_node.children += 1;
                        self.leaves.remove(&(parent_node.last_used, parent));
                    }
                    self.leaves.insert((self.now, child));
                    child
                }
            };
            self.touch(at);
        }
    }

    /// Drops one page, the least recently used of those that nobody else holds, if there is one, or
    /// else of all. False when there is none.
    pub fn drop_oldest(&mut self) -> bool {
        let unshared = |(_, id): &&(u64, NodeId)| {
            self.nodes[id].page.as_ref().is_some_and(|(page, ..)| !page.is_shared())
        };
        let oldest = self.leaves.iter().find(unshared).or_else(|| self.leaves.first());
        let Some(&(used, id)) = oldest else { return false };
        self.leaves.remove(&(used, id));
        let Some((_, parent, tokens)) = self.nodes.remove(&id).and_then(|node| node.page) else {
            return false;
        };
        self.children.remove(&(parent, tokens));
        let parent_node = self.nodes.get_mut(&parent);
        if let Some(node) = parent_node {
            node.children -= 1;
            match (node.children, &node.page) {
                (0, Some(_)) => {
                    self.leaves.insert((node.last_used, parent));
                }
                (0, None) => {
                    self.nodes.remove(&parent);
                    self.roots.retain(|_, root| *root != parent);
                }
                _ => {}
            }
        }
        true
    }

    /// Drops every page.
    pub fn clear(&mut self) {
        *self = Self { next_node: self.next_node, ..Self::new(self.page_tokens) };
    }

    fn add(&mut self, page: Option<(P, NodeId, Box<[u32]>)>) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, Node { page, children: 0, last_used: self.now });
        id
    }

    fn touch(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if self.leaves.remove(&(node.last_used, id)) {
            self.leaves.insert((self.now, id));
        }
        node.last_used = self.now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    impl Page for Arc<u32> {
        fn is_shared(&self) -> bool {
            Arc::strong_count(self) > 1
        }
    }

    fn namespace(principal: &str) -> Namespace {
        Namespace {
            principal: Principal::Token(principal.into()),
            base_hash: "b".to_owned(),
            branch: "main".to_owned(),
            lsn: 0,
        }
    }

    fn pages(numbers: std::ops::Range<u32>) -> Vec<Arc<u32>> {
        numbers.map(Arc::new).collect()
    }

    fn numbers(pages: &[Arc<u32>]) -> Vec<u32> {
        pages.iter().map(|page| **page).collect()
    }

    #[test]
    fn the_longest_known_beginning_is_found_in_whole_pages() {
        let (mut index, ada) = (PrefixIndex::new(2), namespace("ada"));
        index.insert(&ada, &[1, 2, 3, 4, 5], &pages(0..2));
        assert_eq!(numbers(&index.find(&ada, &[1, 2, 3, 4, 9, 9])), [0, 1]);
        assert_eq!(numbers(&index.find(&ada, &[1, 2, 3, 5])), [0]);
        assert_eq!(numbers(&index.find(&ada, &[1, 2, 3])), [0], "half a page is none");
        assert!(index.find(&ada, &[2, 2]).is_empty());
        assert!(index.find(&ada, &[]).is_empty());
        // The same tokens at another place are other pages.
        assert!(index.find(&ada, &[3, 4]).is_empty());
    }

    #[test]
    fn nothing_is_shared_across_principals_bases_branches_or_lsns() {
        let mut index = PrefixIndex::new(1);
        let ada = namespace("ada");
        index.insert(&ada, &[1, 2], &pages(0..2));
        for other in [
            namespace("bob"),
            Namespace { principal: Principal::Uid(0), ..ada.clone() },
            Namespace { principal: Principal::Loopback, ..ada.clone() },
            Namespace { base_hash: "c".to_owned(), ..ada.clone() },
            Namespace { branch: "x".to_owned(), ..ada.clone() },
            Namespace { lsn: 1, ..ada.clone() },
        ] {
            assert!(index.find(&other, &[1, 2]).is_empty(), "{other:?}");
            index.insert(&other, &[1, 2], &pages(10..12));
            assert_eq!(numbers(&index.find(&ada, &[1, 2])), [0, 1]);
        }
    }

    #[test]
    fn of_two_pages_for_the_same_tokens_the_first_stays() {
        let (mut index, ada) = (PrefixIndex::new(1), namespace("ada"));
        index.insert(&ada, &[1], &pages(0..1));
        index.insert(&ada, &[1, 2], &pages(5..7));
        assert_eq!(numbers(&index.find(&ada, &[1, 2])), [0, 6]);
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn the_least_recently_used_chain_goes_first_from_its_end() {
        let (mut index, ada) = (PrefixIndex::new(1), namespace("ada"));
        index.insert(&ada, &[1, 2], &pages(0..2));
        index.insert(&ada, &[1, 3, 4], &pages(0..3));
        index.find(&ada, &[1, 2]);
        for (left, found) in [(3, [0, 1].as_slice()), (2, &[0, 1]), (1, &[0]), (0, &[])] {
            assert!(index.drop_oldest());
            assert_eq!(index.len(), left);
            assert_eq!(index.clone_numbers(&ada, &[1, 2]), found);
        }
        assert!(!index.drop_oldest());
        assert!(index.roots.is_empty() && index.nodes.is_empty() && index.leaves.is_empty());
    }

    #[test]
    fn pages_in_use_are_dropped_last_and_only_unshared_ones_count_as_reclaimable() {
        let (mut index, ada) = (PrefixIndex::new(1), namespace("ada"));
        let in_use = pages(0..2);
        index.insert(&ada, &[1, 2], &in_use);
        index.insert(&ada, &[7], &pages(9..10));
        assert_eq!((index.len(), index.reclaimable()), (3, 1));
        index.find(&ada, &[7]);
        assert!(index.drop_oldest());
        assert!(index.find(&ada, &[7]).is_empty(), "the younger one was free to go");
        assert_eq!(index.reclaimable(), 0);
        assert!(index.drop_oldest(), "an entry in use may be forgotten: its holder keeps the page");
        assert_eq!(numbers(&in_use), [0, 1]);
    }

    impl PrefixIndex<Arc<u32>> {
        /// What `find` would give, without marking it as used.
        fn clone_numbers(&self, namespace: &Namespace, tokens: &[u32]) -> Vec<u32> {
            let mut found = Vec::new();
            let Some(mut at) = self.roots.get(namespace).copied() else { return found };
            for tokens in tokens.chunks_exact(self.page_tokens) {
                let Some(&child) = self.children.get(&(at, tokens.into())) else { break };
                at = child;
                found.extend(self.nodes[&at].page.as_ref().map(|page| *page.0));
            }
            found
        }
    }

    #[test]
    fn a_model_of_lists_agrees_under_random_use() {
        // Tokens and pages are the same here, so what is found tells whether it is right.
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut index = PrefixIndex::new(1);
        for _ in 0..20_000 {
            let who = namespace(["ada", "bob"][random(2) as usize]);
            let offset = if who.principal == Principal::Token("ada".into()) { 0 } else { 100 };
            let tokens: Vec<u32> = (0..random(5)).map(|_| random(3) as u32).collect();
            match random(4) {
                0 => {
                    let pages: Vec<_> = tokens.iter().map(|&t| Arc::new(t + offset)).collect();
                    index.insert(&who, &tokens, &pages);
                }
                1 => {
                    index.drop_oldest();
                }
                _ => {
                    let found = numbers(&index.find(&who, &tokens));
                    let expected = tokens[..found.len()].iter().map(|&t| t + offset);
                    assert_eq!(found, expected.collect::<Vec<_>>());
                }
            }
            assert!(index.leaves.len() <= index.len());
            assert_eq!(index.nodes.len(), index.len() + index.roots.len());
        }
    }
}
