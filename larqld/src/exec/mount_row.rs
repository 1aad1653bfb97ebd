//! A mount as a row: what SHOW MOUNTS, USE and MOUNT answer.

use larql_planner::value::Value;

use super::{Row, Work};
use crate::engine::MountEntry;
use crate::mounts::Mounted;

/// A count as a value.
pub(super) fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The row of an open mount.
pub(super) fn mount_row(work: &Work<'_>, mounted: &Mounted) -> Row {
    let model = &mounted.model;
    let features: u64 = (0..model.layers()).map(|layer| model.features(layer)).sum();
    let in_use = work.context.state().current.as_ref().is_some_and(|current| {
        current.name == mounted.name && current.model.path() == model.path()
    });
    vec![
        Value::text(mounted.name.as_str()),
        Value::text(model.path().display().to_string()),
        Value::text(model.kind().as_str()),
        Value::text(model.level()),
        integer(model.layers().into()),
        integer(features),
        Value::text(model.base_hash()),
        Value::Boolean(in_use),
    ]
}

/// The row of a mount in any state.
pub(super) fn entry_row(work: &Work<'_>, name: &str, entry: &MountEntry) -> Row {
    match entry {
        MountEntry::Open(mounted) => mount_row(work, mounted),
        MountEntry::Unavailable { path, .. } => vec![
            Value::text(name),
            Value::text(path.display().to_string()),
            Value::Null,
            Value::text("unavailable"),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Boolean(false),
        ],
    }
}
