//! Edits: logs, stores, patches, and what failures and losses of power leave of them.

mod compaction;
mod conformance;
mod damage;
mod faults;
mod isolation;
mod killed;
mod patches;
mod power;
mod semantics;
mod support;
