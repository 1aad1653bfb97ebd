//! The tables of schema `larql`: what the daemon knows of itself, for SELECT.

use super::BindError;
use super::source::features;
use super::statement::Reader;
use crate::layers::LayerSet;
use crate::logical::Plan;
use crate::logical::plan::{
    CACHE_COLUMNS, FACTS_TABLE_COLUMNS, INDEX_COLUMNS, MOUNT_COLUMNS, SESSION_COLUMNS,
    SETTING_COLUMNS, STATEMENT_COLUMNS, WAL_COLUMNS,
};
use crate::physical::plan::{Operator, RELATION_COUNT_INPUT, RelationCount};

/// The schema's name.
pub(super) const SCHEMA: &str = "larql";

/// Every table, with its schema, for messages.
pub(super) const TABLES: [&str; 9] = [
    "larql.caches",
    "larql.indexes",
    "larql.mounts",
    "larql.relations",
    "larql.sessions",
    "larql.settings",
    "larql.statements",
    "larql.tables",
    "larql.wal",
];

/// The rows of a table of the schema; `None` where there is none of that name.
///
/// # Errors
/// `larql.indexes`, `larql.relations` and `larql.wal` are about the mount in use.
pub(super) fn table(
    name: &str,
    current: Result<&Reader<'_>, BindError>,
) -> Result<Option<Plan>, BindError> {
    Ok(Some(match name.to_ascii_lowercase().as_str() {
        "mounts" => Plan::leaf(Operator::ShowMounts, &MOUNT_COLUMNS),
        "sessions" => Plan::leaf(Operator::ShowSessions, &SESSION_COLUMNS),
        "settings" => Plan::leaf(Operator::ShowSetting { name: None }, &SETTING_COLUMNS),
        "statements" => Plan::leaf(Operator::ShowStatements, &STATEMENT_COLUMNS),
        "caches" => Plan::leaf(Operator::ShowCaches, &CACHE_COLUMNS),
        "tables" => Plan::leaf(Operator::ShowTables, &FACTS_TABLE_COLUMNS),
        "indexes" => {
            current?;
            Plan::leaf(Operator::ShowIndexes, &INDEX_COLUMNS)
        }
        "wal" => {
            current?;
            Plan::leaf(Operator::ShowWal, &WAL_COLUMNS)
        }
        "relations" => {
            let current = current?;
            let layers = LayerSet::all(current.layers());
            let count = RelationCount { examples: false, raw: false, layers: layers.clone() };
            let input = Box::new(features(
                current,
                &RELATION_COUNT_INPUT[..RELATION_COUNT_INPUT.len() - 1],
                layers,
            )?);
            Plan::RelationCount { count, input }
        }
        _ => return Ok(None),
    }))
}
