//! Plans and answers that are kept, and the moment of the world that they are true of.
//!
//! A statement that only reads the mount in use has one answer for as long as the mount's weights, labels
//! and indexes and the session's settings are what they are: that is its [`Key`], with the text, its
//! parameters and the caller. So nothing is ever taken out because it became wrong; what changes makes
//! other keys, and what nobody asks for any more gives way.
//!
//! Promises: what one caller computed is given to that caller and to nobody else; all that is kept takes
//! at most `result_cache_mb` by its own reckoning; an answer given twice is the same twice.
//!
//! Elsewhere: keeping and giving in a statement's life (`exec`).

mod record;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use larql_planner::Planned;
use larql_planner::catalog::Settings;
use larql_planner::physical::plan::{Node, Operator};
use larql_planner::syntax::ast::Statement;
use larql_planner::value::Value;
use parking_lot::Mutex;

pub use record::Recorder;

use crate::edits::Identity;
use crate::engine::{CatalogSnapshot, SessionContext};
use crate::exec::Output;
use crate::session::Principal;

/// What a kept plan is reckoned to take beside the statement's text.
const PLAN_BYTES: usize = 4096;
/// The part of the cache that one answer may take at most.
const ANSWER_PART: usize = 16;
/// Most bytes of a statement that is looked up.
const TEXT_BYTES_MAX: usize = 4096;

/// What makes an answer what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    principal: Principal,
    /// The name under which the mount is in use, which answers tell.
    mount: Arc<str>,
    /// The open model, and how often what it answers from has changed.
    model: (u64, u64),
    /// The branch and its last change.
    edits: Identity,
    settings: Settings,
    text: Box<str>,
    /// The values of the script's parameters, as a program would write them.
    parameters: String,
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.principal.hash(state);
        self.mount.hash(state);
        self.model.hash(state);
        self.settings.hash(state);
        self.edits.hash(state);
        self.text.hash(state);
        self.parameters.hash(state);
    }
}

impl Key {
    /// The key of a statement in this moment; `None` where no mount is in use, or nothing is kept.
    pub fn new(
        context: &SessionContext,
        snapshot: &CatalogSnapshot,
        text: &str,
        parameters: &[Value],
    ) -> Option<Self> {
        let mounted = snapshot.current.as_ref()?;
        if text.len() > TEXT_BYTES_MAX || !snapshot.has_cache() {
            return None;
        }
        let parameters = match parameters {
            [] => String::new(),
            values => Some(format!("{values:?}")).filter(|text| text.len() <= TEXT_BYTES_MAX)?,
        };
        Some(Self {
            principal: context.principal().clone(),
            mount: mounted.name.as_str().into(),
            model: mounted.model.moment(),
            edits: snapshot.edits.as_ref().ok()?.identity().clone(),
            settings: snapshot.settings_now().clone(),
            text: text.into(),
            parameters,
        })
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + self.parameters.len() + self.mount.len()
    }
}

/// Whether a statement's rows depend on the key alone: it reads the mount in use, and nothing else. What
/// EXECUTE runs is another thing in another session.
pub fn is_cacheable(statement: &Statement, plan: &Node) -> bool {
    let executes = match statement {
        Statement::Execute { .. } => true,
        Statement::Pipe(stages) => {
            stages.iter().any(|stage| matches!(stage.statement, Statement::Execute { .. }))
        }
        _ => false,
    };
    !executes && reads_mount_only(plan)
}

fn reads_mount_only(plan: &Node) -> bool {
    let own = matches!(
        plan.operator,
        Operator::FeatureScan(_)
            | Operator::SlotLookup(_)
            | Operator::PostingLookup(_)
            | Operator::EntityLookup { .. }
            | Operator::GateScan(_)
            | Operator::GateIndexScan(_)
            | Operator::GateSlots(_)
            | Operator::Nearest(_)
            | Operator::OneRow
            | Operator::NestedLoopJoin { .. }
            | Operator::HashJoin(_)
            | Operator::Aggregate { .. }
            | Operator::Filter { .. }
            | Operator::Project { .. }
            | Operator::Sort { .. }
            | Operator::TopN { .. }
            | Operator::Limit { .. }
            | Operator::Distinct
            | Operator::Concatenate
            | Operator::DescribeEdges(_)
            | Operator::KnownEdges(_)
            | Operator::EditedEdges(_)
            | Operator::EntityCount
            | Operator::RelationCount(_)
            | Operator::LayerStatistics { .. }
    );
    own && plan.children.iter().all(reads_mount_only)
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its rows and notices, in order.
    pub pieces: Vec<Output>,
    /// How many rows.
    pub rows: u64,
    /// What it is reckoned to take.
    pub bytes: usize,
}

/// What is kept under a key.
#[derive(Debug, Clone)]
pub struct Kept {
    /// How the statement runs.
    pub planned: Arc<Planned>,
    /// What it answered.
    pub answer: Option<Arc<Answer>>,
}

/// What has been asked of one kind of kept things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many are kept.
    pub entries: u64,
    /// What they are reckoned to take.
    pub bytes: u64,
    /// How often one was found.
    pub hits: u64,
    /// How often none was.
    pub misses: u64,
}

/// The plans and answers of all sessions.
#[derive(Debug)]
pub struct Cache {
    bytes_max: usize,
    state: Mutex<State>,
}

/// Two halves: what was asked for lately, and what was before that. When the first is full it becomes the
/// second, and the second goes.
#[derive(Debug, Default)]
struct State {
    young: HashMap<Key, Kept>,
    young_bytes: usize,
    old: HashMap<Key, Kept>,
    old_bytes: usize,
    plans: Counts,
    answers: Counts,
}

impl Cache {
    /// A cache that takes at most so many bytes; 0 keeps nothing.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    /// Whether anything is ever kept.
    pub fn is_on(&self) -> bool {
        self.bytes_max > 0
    }

    /// What it takes at most.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What one answer may take at most.
    pub fn answer_bytes_max(&self) -> usize {
        self.bytes_max / ANSWER_PART
    }

    /// What is kept under a key, for a statement that begins.
    pub fn get(&self, key: &Key) -> Option<Kept> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let found = state.find(key);
        let answered = found.as_ref().is_some_and(|kept| kept.answer.is_some());
        for (found, counts) in [(found.is_some(), &mut state.plans), (answered, &mut state.answers)]
        {
            if found { counts.hits += 1 } else { counts.misses += 1 }
        }
        if let Some(kept) = &found
            && !state.young.contains_key(key)
        {
            self.put(state, key.clone(), kept.clone());
        }
        found
    }

    /// The answer that is kept under a key, for whoever only wants to know.
    pub fn peek(&self, key: &Key) -> Option<Arc<Answer>> {
        self.state.lock().find(key)?.answer
    }

    /// Keeps a plan, with its answer where there is one.
    pub fn keep(&self, key: Key, kept: Kept) {
        if self.is_on() {
            self.put(&mut self.state.lock(), key, kept);
        }
    }

    fn put(&self, state: &mut State, key: Key, kept: Kept) {
        let bytes = reckoned(&key, &kept);
        if state.young_bytes + bytes > self.bytes_max / 2 {
            state.old = std::mem::take(&mut state.young);
            state.old_bytes = std::mem::take(&mut state.young_bytes);
        }
        if bytes > self.bytes_max / 2 {
            return;
        }
        let before = state.young.get(&key).map_or(0, |kept| reckoned(&key, kept));
        state.young_bytes = state.young_bytes + bytes - before;
        state.young.insert(key, kept);
    }

    /// What has been asked of plans, and of answers.
    pub fn counts(&self) -> [(&'static str, Counts); 2] {
        let state = self.state.lock();
        let all = || {
            let old = state.old.iter().filter(|(key, _)| !state.young.contains_key(*key));
            state.young.iter().chain(old)
        };
        let answers = all().filter_map(|(_, kept)| kept.answer.as_ref());
        let answer_bytes = answers.clone().map(|answer| answer.bytes as u64).sum();
        let plan_bytes = all().map(|(key, _)| (key.bytes() + PLAN_BYTES) as u64).sum();
        let (plans, entries) = (all().count() as u64, answers.count() as u64);
        [
            ("answers", Counts { entries, bytes: answer_bytes, ..state.answers }),
            ("plans", Counts { entries: plans, bytes: plan_bytes, ..state.plans }),
        ]
    }
}

impl State {
    fn find(&self, key: &Key) -> Option<Kept> {
        self.young.get(key).or_else(|| self.old.get(key)).cloned()
    }
}

fn reckoned(key: &Key, kept: &Kept) -> usize {
    key.bytes() + PLAN_BYTES + kept.answer.as_ref().map_or(0, |answer| answer.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use larql_planner::Role;
    use larql_planner::physical::plan::Node;

    fn key(text: &str) -> Key {
        Key {
            principal: Principal::Loopback,
            mount: "m".into(),
            model: (1, 1),
            edits: Identity { branch: "main".into(), lsn: 0, pending: 0 },
            settings: Settings::default(),
            text: text.into(),
            parameters: String::new(),
        }
    }

    fn kept(bytes: usize) -> Kept {
        let planned = Planned {
            physical: Node::new(Operator::OneRow, Vec::new(), Vec::new()),
            columns: Vec::new(),
            tag: "SELECT",
            required_role: Role::Reader,
            mount: None,
            rules_trace: None,
        };
        let answer = Answer { pieces: Vec::new(), rows: 0, bytes };
        Kept { planned: Arc::new(planned), answer: Some(Arc::new(answer)) }
    }

    #[test]
    fn another_caller_model_setting_or_parameter_finds_nothing() {
        let cache = Cache::new(1 << 20);
        cache.keep(key("a"), kept(10));
        assert!(cache.get(&key("a")).is_some());
        let mut settings = Settings::default();
        let literal = larql_planner::syntax::ast::SettingLiteral::Integer(1);
        settings.apply(&Settings::check("describe_z", &literal).unwrap());
        for other in [
            Key { principal: Principal::Token("loopback".into()), ..key("a") },
            Key { mount: "n".into(), ..key("a") },
            Key { model: (2, 1), ..key("a") },
            Key { model: (1, 2), ..key("a") },
            Key { settings, ..key("a") },
            Key { parameters: "[1]".into(), ..key("a") },
            Key { edits: Identity { lsn: 1, ..key("a").edits }, ..key("a") },
            Key { edits: Identity { branch: "b".into(), ..key("a").edits }, ..key("a") },
            Key { edits: Identity { pending: 1, ..key("a").edits }, ..key("a") },
            key("b"),
        ] {
            assert!(cache.get(&other).is_none(), "{other:?}");
        }
        let [(_, answers), (_, plans)] = cache.counts();
        assert_eq!((answers.entries, answers.hits, answers.misses), (1, 1, 10));
        assert_eq!((plans.entries, plans.hits, plans.misses), (1, 1, 10));
    }

    #[test]
    fn what_is_kept_stays_within_its_bytes_and_what_is_asked_for_stays() {
        let cache = Cache::new(1 << 20);
        cache.keep(key("wanted"), kept(1000));
        for other in 0..2000 {
            cache.keep(key(&other.to_string()), kept(1000));
            assert!(cache.get(&key("wanted")).is_some(), "after {other}");
            let bytes: u64 = cache.counts().iter().map(|(_, counts)| counts.bytes).sum();
            assert!(bytes <= 1 << 20, "{bytes} after {other}");
        }
        assert!(cache.get(&key("0")).is_none());
        cache.keep(key("huge"), kept(1 << 20));
        assert!(cache.get(&key("huge")).is_none());
        let off = Cache::new(0);
        off.keep(key("a"), kept(0));
        assert!(off.get(&key("a")).is_none());
    }
}
