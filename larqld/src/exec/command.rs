//! Statements that change what the session or the daemon has: USE, MOUNT, UNMOUNT, SET, RESET, PREPARE,
//! DEALLOCATE, DROP TABLE.

use std::sync::Arc;

use larql_planner::physical::plan::{Operator as Physical, Use};
use parking_lot::Mutex;

use super::mount_row::mount_row;
use super::{Operator, Row, Work};
use crate::edits::Transaction;
use crate::failure::{Failure, code};
use crate::mounts::{Kind, Mounted};
use crate::paths;
use crate::remote::Remote;

/// Does one thing once and tells what it did.
pub(super) struct Command {
    operator: Option<Physical>,
}

impl Command {
    pub(super) fn new(operator: Physical) -> Self {
        Self { operator: Some(operator) }
    }
}

impl Operator for Command {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        match self.operator.take() {
            Some(Physical::Use(wanted)) => use_mount(work, &wanted)?,
            Some(Physical::Mount { path, name }) => {
                return mount(work, &path, name).map(|row| Some(vec![row]));
            }
            Some(Physical::Unmount { name }) => {
                let state = work.context.state();
                let current = state.current.as_ref().is_some_and(|mounted| mounted.name == name);
                if let Some(open) = state.transaction.as_ref().filter(|_| current) {
                    return Err(still_open(open));
                }
                drop(state);
                work.engine().unmount(&name)?;
                let mut state = work.context.state();
                if state.current.as_ref().is_some_and(|mounted| mounted.name == name) {
                    state.current = None;
                    work.mounted = None;
                }
                drop(state);
                work.notice(format!("unmounted {name}"), "")?;
            }
            Some(Physical::Set(change)) => work.context.state().settings.apply(&change),
            Some(Physical::Reset { name }) => {
                let reset = work.context.state().settings.reset(name);
                reset.map_err(|error| Failure::new(code::UNDEFINED_OBJECT, error.to_string()))?;
            }
            Some(Physical::Prepare { name, prepared }) => {
                work.context.state().prepare(name, prepared)?;
            }
            Some(Physical::Deallocate { name }) => work.context.state().deallocate(&name),
            Some(Physical::DropTable { name }) => work.engine().tables().drop_table(&name)?,
            _ => {}
        }
        Ok(None)
    }
}

fn use_mount(work: &mut Work<'_>, wanted: &Use) -> Result<(), Failure> {
    if let Some(open) = &work.context.state().transaction {
        return Err(still_open(open));
    }
    let (mounted, branch) = match wanted {
        Use::Remote(url) => return use_remote(work, url),
        Use::Vindex { reference, branch } => (find(work, reference, Kind::Vindex)?, branch.clone()),
        Use::Model { path, .. } => (find(work, path, Kind::Checkpoint)?, None),
        Use::Current { branch } => {
            let mounted = work.mounted.clone().ok_or_else(|| {
                Failure::new(code::NO_MOUNT_IN_USE, "no mount is in use").hint("USE \"name\"")
            })?;
            (mounted, branch.clone().or_else(|| work.context.state().branch.clone()))
        }
    };
    mounted.model.check()?;
    let name = branch.as_deref().unwrap_or(larql_storage::store::MAIN);
    let view = work.engine().edits().view(mounted.model.base_hash(), name)?;
    tell_assumptions(work, &mounted)?;
    let mut state = work.context.state();
    state.current = Some(mounted.clone());
    state.branch = branch;
    state.auto_extract = matches!(wanted, Use::Model { auto_extract: true, .. });
    // A session elsewhere ends when nobody owns it any more.
    let remote = state.remote.take();
    drop(state);
    drop(remote);
    work.mounted = Some(mounted);
    work.set_view(Arc::new(view));
    Ok(())
}

/// Sends the session to another daemon.
fn use_remote(work: &mut Work<'_>, url: &str) -> Result<(), Failure> {
    let remote = Remote::connect(url, work.engine().remote_token()?, work.cancel)?;
    work.notice(format!("statements go to {}", remote.described()), "")?;
    let before = work.context.state().remote.replace(Arc::new(Mutex::new(remote)));
    drop(before);
    Ok(())
}

fn still_open(open: &Transaction) -> Failure {
    let message = format!("{} is open on the mount in use", open.title());
    Failure::new(code::TRANSACTION_OPEN, message).hint("COMMIT, SAVE PATCH or ROLLBACK first")
}

fn tell_assumptions(work: &Work<'_>, mounted: &Mounted) -> Result<(), Failure> {
    mounted.model.assumptions().iter().try_for_each(|note| work.notice(note.clone(), ""))
}

fn find(work: &Work<'_>, reference: &str, kind: Kind) -> Result<Arc<Mounted>, Failure> {
    let engine = work.engine();
    let mounted = engine.find_model(reference, &work.place())?;
    // Another mount may have the name that a path ends in.
    let is_mounted = |found: &Mounted| {
        let named = engine.mounted(&found.name);
        named.is_ok_and(|named| named.model.path() == found.model.path())
    };
    match (kind, mounted.model.kind()) {
        (Kind::Checkpoint, Kind::Vindex) => Err(Failure::new(
            code::INVALID_PARAMETER,
            format!("{reference:?} is a vindex, not a checkpoint"),
        )
        .hint(format!("USE {reference:?}"))),
        (Kind::Vindex, Kind::Checkpoint) if !is_mounted(&mounted) => Err(Failure::new(
            code::INVALID_PARAMETER,
            format!("{reference:?} is a checkpoint, not a vindex"),
        )
        .hint(format!("USE MODEL {reference:?} runs it as it is; EXTRACT makes a vindex of it"))),
        _ => Ok(mounted),
    }
}

fn mount(work: &mut Work<'_>, path: &str, name: Option<String>) -> Result<Row, Failure> {
    let path = work.resolve(path)?;
    let name = name.unwrap_or_else(|| paths::stem(&path));
    let mounted = work.engine().mount(&work.files(), &path, &name, work.cancel)?;
    tell_assumptions(work, &mounted)?;
    let row = mount_row(work, &mounted);
    work.mounted = Some(mounted);
    Ok(row)
}
