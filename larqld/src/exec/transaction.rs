//! BEGIN, COMMIT, ROLLBACK, SAVEPOINT, and what is about patches, branches and assertions; and the way that every statement
//! that edits takes to the log: [`edit`].

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use larql_planner::physical::transaction::Transaction as Operands;
use larql_planner::syntax::ast::{Harm, Moment};
use larql_planner::value::Value;
use larql_storage::file::{FileKind, Files, NewFile};
use larql_storage::overlay::{Effect, Operation, Overlay};
use larql_storage::patch::{self, PatchFile, Step};
use larql_storage::store::{Assertion, Commit, MAIN, Record, Transaction as Committed, digest};

use super::edit::{Sum, of_operations};
use super::mount_row::integer;
use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::editing::applied::{Applied, Identity};
use crate::editing::assertions;
use crate::edits::{
    COMPILED, PatchPlace, Transaction, View, base_shape, provenance, require_vindex, timestamp,
};
use crate::failure::{Failure, code};
use crate::mounts::{Model, Mounted};
use crate::pipeline::compile::EDITS;
use crate::text::counted;

/// Assertions of a branch: each is inferred whenever something is committed.
const ASSERTIONS_MAX: usize = 1000;

/// Makes operations happen: into the session's transaction, or by themselves, durable on return.
///
/// The statement sees them from here on. Returns the LSN where they were committed.
///
/// # Errors
/// `MISSING_COMPONENT` on a checkpoint, `INVALID_PARAMETER` for what does not fit the model, `CONFLICT` when
/// somebody changed the same thing first; when the log fails.
pub(crate) fn edit(
    work: &mut Work<'_>,
    operations: Vec<Operation>,
) -> Result<Option<u64>, Failure> {
    let mounted = mounted(work)?;
    require_vindex(&mounted.model, &mounted.name)?;
    let base = base_shape(&mounted.model);
    for operation in &operations {
        operation.check_on(&base).map_err(|problem| {
            Failure::new(code::INVALID_PARAMETER, format!("the edit does not fit: {problem}"))
        })?;
    }
    if operations.is_empty() {
        return Ok(None);
    }
    let (text, edits) = (work.statement_text(), work.engine().edits());
    let mut state = work.context.state();
    if let Some(transaction) = &mut state.transaction {
        if transaction.base_hash != mounted.model.base_hash() {
            let message = format!("{} began on other weights", transaction.title());
            return Err(Failure::new(code::CONFLICT, message)
                .hint("the mount was replaced meanwhile: ROLLBACK, and begin again"));
        }
        transaction.add(edits, operations, text)?;
        let view = transaction.view().clone();
        drop(state);
        work.set_view(view);
        return Ok(None);
    }
    drop(state);
    commit(work, &mounted, None, operations, text).map(Some)
}

pub(super) fn mounted(work: &Work<'_>) -> Result<Arc<Mounted>, Failure> {
    work.mounted.clone().ok_or_else(|| {
        Failure::new(code::NO_MOUNT_IN_USE, "no mount is in use").hint("USE \"name\"")
    })
}

/// Commits operations on what the statement sees, and lets it see the outcome.
fn commit(
    work: &mut Work<'_>,
    mounted: &Mounted,
    patch: Option<String>,
    operations: Vec<Operation>,
    statement: String,
) -> Result<u64, Failure> {
    let base_hash = mounted.model.base_hash();
    let view = work.view().clone();
    let record = Record::Commit(Commit {
        branch: view.identity().branch.to_string(),
        patch,
        operations: operations.into(),
        provenance: provenance(work.context.principal(), statement, base_hash),
        digest: None,
    });
    record_now(work, mounted, record)
}

/// Refuses edits under which an assertion does not hold: what COMMIT, APPLY, REMOVE, COMPACT and COMPILE ask.
///
/// # Errors
/// As [`assertions::require`].
pub(crate) fn require_assertions(
    work: &Work<'_>,
    model: &Model,
    overlay: &Overlay,
    asserted: &[Arc<Assertion>],
) -> Result<(), Failure> {
    if asserted.is_empty() {
        return Ok(());
    }
    let edits = Applied::new(model, overlay.clone(), Identity::default())?;
    assertions::require(model, &edits, asserted, work.engine().pool(), work.cancel)
}

pub(super) fn record_now(
    work: &mut Work<'_>,
    mounted: &Mounted,
    record: Record,
) -> Result<u64, Failure> {
    let (base_hash, seen) = (mounted.model.base_hash(), work.view().seen());
    let lsn = work.engine().edits().commit(base_hash, record, seen, |after| {
        let asserted: Vec<_> = after.assertions().cloned().collect();
        require_assertions(work, &mounted.model, after.overlay(), &asserted)
    })?;
    refresh(work, mounted)?;
    Ok(lsn)
}

/// Lets the statement see its branch as it is now.
fn refresh(work: &mut Work<'_>, mounted: &Mounted) -> Result<(), Failure> {
    let branch = work.view().identity().branch.clone();
    let view = work.engine().edits().view(mounted.model.base_hash(), &branch)?;
    work.set_view(Arc::new(view));
    Ok(())
}

/// Runs one of the statements.
pub(super) struct RunTransaction {
    operands: Option<Operands>,
}

impl RunTransaction {
    pub(super) fn new(operands: Operands) -> Self {
        Self { operands: Some(operands) }
    }
}

impl Operator for RunTransaction {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(operands) = self.operands.take() else { return Ok(None) };
        let mounted = mounted(work)?;
        match operands {
            Operands::Begin => begin(work, &mounted, None)?,
            Operands::BeginPatch(text) => {
                let place = place(work, &text)?;
                require_free(work, &place)?;
                begin(work, &mounted, Some(place))?;
            }
            Operands::Commit => commit_transaction(work, &mounted)?,
            Operands::Rollback(None) => {
                let transaction = take(work)?;
                let count = transaction.operations().len();
                refresh(work, &mounted)?;
                work.notice(format!("rolled back: {} dropped", counted(count, "operation")), "")?;
            }
            Operands::Rollback(Some(name)) => {
                let view = with_open(work, |transaction, edits| {
                    transaction.rollback_to(edits, &name)?;
                    Ok(transaction.view().clone())
                })?;
                work.set_view(view);
            }
            Operands::Savepoint(name) => with_open(work, |open, _| open.savepoint(&name))?,
            Operands::SavePatch(text) => {
                return save_patch(work, &mounted, text.as_deref()).map(|row| Some(vec![row]));
            }
            Operands::ApplyPatch { patch, force, harm } => {
                return apply_patch(work, &mounted, &patch, force, harm).map(|row| Some(vec![row]));
            }
            Operands::RemovePatch(text) => {
                outside(work, "REMOVE PATCH")?;
                let record = Record::RemovePatch {
                    branch: work.view().identity().branch.to_string(),
                    patch: PatchPlace::name_of(&text),
                    provenance: here(work, &mounted),
                };
                let lsn = record_now(work, &mounted, record)?;
                work.notice(format!("removed at LSN {lsn}"), "")?;
            }
            Operands::CreateBranch { name, from, at } => {
                create_branch(work, &mounted, name, from, at)?;
            }
            Operands::DropBranch(name) => drop_branch(work, &mounted, name)?,
            Operands::CreateAssertion { name, prompt, expected, at_least } => {
                let assertion = Assertion { name, prompt, expected, at_least };
                create_assertion(work, &mounted, assertion)?;
            }
            Operands::DropAssertion(name) => {
                outside(work, "DROP ASSERTION")?;
                let branch = work.view().identity().branch.to_string();
                record_now(work, &mounted, Record::DropAssertion { branch, name })?;
            }
        }
        Ok(None)
    }
}

/// Where a change that this statement makes comes from.
pub(super) fn here(work: &Work<'_>, mounted: &Mounted) -> larql_storage::store::Provenance {
    provenance(work.context.principal(), work.statement_text(), mounted.model.base_hash())
}

fn begin(work: &mut Work<'_>, mounted: &Mounted, patch: Option<PatchPlace>) -> Result<(), Failure> {
    outside(work, "BEGIN")?;
    require_vindex(&mounted.model, &mounted.name)?;
    let transaction = Transaction::begin(mounted.model.base_hash(), work.view().clone(), patch);
    work.context.state().transaction = Some(transaction);
    Ok(())
}

/// Refuses inside a transaction.
pub(super) fn outside(work: &Work<'_>, what: &str) -> Result<(), Failure> {
    match &work.context.state().transaction {
        None => Ok(()),
        Some(open) => Err(Failure::new(
            code::TRANSACTION_OPEN,
            format!("{what} stands outside transactions, and {} is open", open.title()),
        )
        .hint("COMMIT, SAVE PATCH or ROLLBACK first")),
    }
}

fn no_transaction() -> Failure {
    Failure::new(code::NO_TRANSACTION, "no transaction is open")
        .hint("BEGIN, or BEGIN PATCH \"name\"; outside of one every edit is committed by itself")
}

fn with_open<T>(
    work: &Work<'_>,
    run: impl FnOnce(&mut Transaction, &crate::edits::Edits) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut state = work.context.state();
    run(state.transaction.as_mut().ok_or_else(no_transaction)?, work.engine().edits())
}

fn take(work: &Work<'_>) -> Result<Transaction, Failure> {
    work.context.state().transaction.take().ok_or_else(no_transaction)
}

fn commit_transaction(work: &mut Work<'_>, mounted: &Mounted) -> Result<(), Failure> {
    let named = with_open(work, |open, _| Ok(open.patch.is_some()))?;
    if named {
        // COMMIT of a patch records it under its name, and writes its file as SAVE PATCH does.
        return save_patch(work, mounted, None).map(drop);
    }
    let transaction = take(work)?;
    let count = transaction.operations().len();
    if count == 0 {
        refresh(work, mounted)?;
        return work.notice("nothing was changed", "");
    }
    let lsn = commit_taken(work, mounted, transaction, None)?;
    work.notice(format!("committed {} at LSN {lsn}", counted(count, "operation")), "")
}

/// Commits a transaction that is the session's no more; whatever comes of it, it is over.
fn commit_taken(
    work: &mut Work<'_>,
    mounted: &Mounted,
    transaction: Transaction,
    patch: Option<String>,
) -> Result<u64, Failure> {
    // What it was decided upon is the moment at which it began.
    work.set_view(transaction.began().clone());
    let statement = transaction.statements.join("; ");
    let operations = transaction.operations().to_vec();
    commit(work, mounted, patch, operations, statement).map_err(|mut failure| {
        failure.message += "; the transaction is over, and nothing of it is visible";
        failure
    })
}

pub(super) fn place(work: &Work<'_>, text: &str) -> Result<PatchPlace, Failure> {
    PatchPlace::of(text, work.engine().data_dir(), |path| work.resolve(path))
}

/// The files that a patch's path leads to.
pub(super) fn files_of(work: &Work<'_>, place: &PatchPlace) -> Arc<dyn Files> {
    if place.is_callers { work.files() } else { work.engine().files().clone() }
}

/// Refuses a patch whose name or file is taken.
fn require_free(work: &Work<'_>, place: &PatchPlace) -> Result<(), Failure> {
    if is_compiled(place) {
        let message = format!("\"{COMPILED}\" is the name of the edits that a vindex comes with");
        return Err(Failure::new(code::INVALID_PARAMETER, message).hint("choose another name"));
    }
    if work.view().branch().is_some_and(|branch| branch.patch(&place.name).is_some()) {
        let message = format!("a patch \"{}\" is applied already", place.name);
        return Err(Failure::new(code::EXISTS, message).hint("choose another name, or REMOVE it"));
    }
    if files_of(work, place).metadata(&place.path).is_ok() {
        let message = format!("{} exists already", place.path.display());
        return Err(Failure::new(code::EXISTS, message).hint("choose another name"));
    }
    Ok(())
}

/// The file is whole and synced before the log says that there is such a patch, and gets its name after: what
/// fails before the log leaves the transaction open.
fn save_patch(work: &mut Work<'_>, mounted: &Mounted, text: Option<&str>) -> Result<Row, Failure> {
    let begun_as = with_open(work, |open, _| Ok(open.patch.clone()))?;
    let place = match (text, begun_as) {
        (Some(text), _) => place(work, text)?,
        (None, Some(place)) => place,
        (None, None) => {
            return Err(Failure::new(code::INVALID_PARAMETER, "the transaction has no name")
                .hint("SAVE PATCH AS \"name\"; the transaction is still open"));
        }
    };
    require_free(work, &place)?;
    let operations = with_open(work, |open, _| Ok(open.operations().to_vec()))?;
    if operations.is_empty() {
        return Err(Failure::new(code::INVALID_PARAMETER, "the patch holds no edit yet")
            .hint("INSERT, UPDATE or DELETE first, or ROLLBACK"));
    }
    let provenance = here(work, mounted);
    let file = PatchFile {
        base_model: mounted.name.clone(),
        base_checksum: Some(mounted.model.base_hash().to_owned()),
        created_at: timestamp(provenance.at_ms),
        description: None,
        author: Some(provenance.author),
        tags: Vec::new(),
        steps: operations.into_iter().map(Step::Operation).collect(),
    };
    let files = files_of(work, &place);
    let mut written = NewFile::create(&files, &place.path)?;
    file.write(&mut written)
        .and_then(|()| written.flush())
        .map_err(|error| written.failed(error))?;
    written.prepare()?;
    let transaction = take(work)?;
    let lsn = commit_taken(work, mounted, transaction, Some(place.name.clone()))?;
    if let Err(error) = written.finish() {
        let message = format!("the patch is committed at LSN {lsn}, and its file is not there");
        work.notice(message, Failure::from(error).message)?;
    }
    applied_row(work, &place.name)
}

fn apply_patch(
    work: &mut Work<'_>,
    mounted: &Mounted,
    text: &str,
    force: bool,
    harm: Option<Harm>,
) -> Result<Row, Failure> {
    outside(work, "APPLY PATCH")?;
    require_vindex(&mounted.model, &mounted.name)?;
    let place = place(work, text)?;
    let (path, bytes) = match is_compiled(&place) {
        true => compiled(&mounted.model)?,
        false => (place.path.clone(), read_patch(work, &place)?),
    };
    let file = PatchFile::parse(&bytes).map_err(|error| Failure::patch(&path, &error))?;
    let base_hash = mounted.model.base_hash().to_owned();
    file.check_on(&base_hash, &base_shape(&mounted.model), force)
        .map_err(|error| Failure::patch(&path, &error))?;
    match &file.base_checksum {
        None => work.notice(
            "the patch names no base: it fits this model's widths, and whether it was made for it is not known",
            "",
        )?,
        Some(found) if force && !found.ends_with(&base_hash) => work.notice(
            format!("the patch was made for base {found}: what it says of features may not hold here"),
            "INFER what it should answer, and REMOVE PATCH takes it back",
        )?,
        Some(_) => {}
    }
    let operations = file.operations_on(work.view().overlay());
    if let Some(there) = work.view().branch().and_then(|branch| branch.patch(&place.name)) {
        if there.digest() == digest(&operations).0 {
            work.notice(format!("it is applied already, at LSN {}", there.lsn), "")?;
            return Ok(with_sum(applied_row(work, &place.name)?, Sum::default()));
        }
        let message = format!("another patch is applied as \"{}\"", place.name);
        return Err(Failure::new(code::EXISTS, message)
            .hint("REMOVE PATCH takes it back; or give the file another name"));
    }
    if operations.is_empty() {
        return Err(Failure::new(
            code::INVALID_PARAMETER,
            "the patch holds no operation that changes anything",
        ));
    }
    let text = work.statement_text();
    let sum = of_operations(work, &operations, harm)?;
    commit(work, mounted, Some(place.name.clone()), operations, text)?;
    Ok(with_sum(applied_row(work, &place.name)?, sum))
}

/// Whether a patch is named that a vindex comes with.
fn is_compiled(place: &PatchPlace) -> bool {
    !place.is_callers && place.name == COMPILED
}

/// The file of the edits that a vindex was compiled with beside its weights.
///
/// # Errors
/// `NO_SUCH_FILE` where it was not.
fn compiled(model: &Model) -> Result<(PathBuf, Vec<u8>), Failure> {
    let path = model.path().join(EDITS);
    let bytes = model.side_file(EDITS)?.map(|bytes| bytes.to_vec());
    let bytes = bytes.ok_or_else(|| {
        let message =
            format!("{} was not compiled with edits beside its weights", model.path().display());
        Failure::new(code::NO_SUCH_FILE, message)
            .hint(format!("\"{COMPILED}\" is the name of such edits; a path names any file"))
    })?;
    Ok((path, bytes))
}

/// The bytes of a patch's file.
///
/// # Errors
/// As reading it; `INVALID_PARAMETER` for what is no regular file.
fn read_patch(work: &Work<'_>, place: &PatchPlace) -> Result<Vec<u8>, Failure> {
    let files = files_of(work, place);
    let failed = |error: &std::io::Error| Failure::io(place.path.display(), error);
    let found = files.metadata(&place.path).map_err(|error| failed(&error))?;
    if found.kind != FileKind::File {
        let message = format!("{} is not a regular file", place.path.display());
        return Err(Failure::new(code::INVALID_PARAMETER, message));
    }
    files.read(&place.path, patch::FILE_BYTES_MAX).map_err(|error| failed(&error))
}

/// The row of a patch with what it does.
fn with_sum(mut row: Row, sum: Sum) -> Row {
    let (before, after) = sum.probabilities.unzip();
    let real = |number: Option<f64>| number.map_or(Value::Null, Value::Real);
    row.extend([real(before), real(after), sum.harm.map_or(Value::Null, Value::text)]);
    row
}

fn create_branch(
    work: &mut Work<'_>,
    mounted: &Mounted,
    name: String,
    from: Option<String>,
    at: Option<Moment>,
) -> Result<(), Failure> {
    outside(work, "CREATE BRANCH")?;
    require_vindex(&mounted.model, &mounted.name)?;
    let base_hash = mounted.model.base_hash();
    let origin = match &from {
        Some(from) => Arc::new(work.engine().edits().view(base_hash, from)?),
        None => work.view().clone(),
    };
    let (from, at) = match &at {
        // The base itself, which is known whatever history is kept.
        Some(Moment::Lsn(0)) => (MAIN.to_owned(), 0),
        Some(at) => {
            let origin = origin.as_of(at)?;
            (origin.identity().branch.to_string(), origin.seen())
        }
        None => (origin.identity().branch.to_string(), origin.seen()),
    };
    let record =
        Record::CreateBranch { name: name.clone(), from, at, provenance: here(work, mounted) };
    let lsn = record_now(work, mounted, record)?;
    work.notice(format!("branch {name} begins at LSN {lsn}"), format!("USE CURRENT BRANCH {name}"))
}

/// An assertion that does not hold yet can be made: nothing else is committed until something makes it hold.
fn create_assertion(
    work: &mut Work<'_>,
    mounted: &Mounted,
    assertion: Assertion,
) -> Result<(), Failure> {
    outside(work, "CREATE ASSERTION")?;
    require_vindex(&mounted.model, &mounted.name)?;
    let view = work.view().clone();
    let count = view.branch().map_or(0, |branch| branch.assertions().count());
    if count >= ASSERTIONS_MAX {
        let message = format!("a branch has at most {ASSERTIONS_MAX} assertions");
        return Err(Failure::new(code::LIMIT, message).hint("DROP ASSERTION ends one"));
    }
    let edits = work.edits(&mounted.model)?;
    let asserted = [Arc::new(assertion.clone())];
    let (pool, cancel) = (work.engine().pool(), work.cancel);
    let checked = assertions::check(&mounted.model, &edits, &asserted, pool, cancel)?;
    let record = Record::CreateAssertion { branch: view.identity().branch.to_string(), assertion };
    record_now(work, mounted, record)?;
    match checked.first() {
        Some(checked) if !checked.holds => work.notice(
            format!(
                "it does not hold yet: {:?} is answered, and {:?} has probability {:.4}",
                checked.answer, checked.assertion.expected, checked.probability
            ),
            "what is committed next must make it hold",
        ),
        _ => Ok(()),
    }
}

fn drop_branch(work: &mut Work<'_>, mounted: &Mounted, name: String) -> Result<(), Failure> {
    outside(work, "DROP BRANCH")?;
    if *name == *work.view().identity().branch {
        let message = format!("branch \"{name}\" is in use by this session");
        return Err(Failure::new(code::BUSY, message).hint("USE CURRENT BRANCH main first"));
    }
    let record = Record::DropBranch { name: name.clone(), provenance: here(work, mounted) };
    let lsn = record_now(work, mounted, record)?;
    work.notice(format!("dropped branch {name} at LSN {lsn}"), "")
}

fn applied_row(work: &Work<'_>, name: &str) -> Result<Row, Failure> {
    let view = work.view();
    let found = view.branch().and_then(|branch| branch.patch(name));
    let gone = || Failure::new(code::CONFLICT, format!("patch \"{name}\" was removed meanwhile"));
    Ok(patch_row(found.ok_or_else(gone)?, view))
}

/// A transaction as SHOW PATCHES tells it.
fn patch_row(transaction: &Committed, view: &View) -> Row {
    let [(Effect::Insert, inserts), (Effect::Update, updates), (Effect::Delete, deletes)] =
        transaction.effects()
    else {
        unreachable!("effects are counted in this order")
    };
    let commit = &transaction.commit;
    let name = commit.patch.as_deref().map_or(Value::Null, Value::text);
    vec![
        name,
        Value::text(&*view.identity().branch),
        integer(inserts as u64),
        integer(updates as u64),
        integer(deletes as u64),
        integer(transaction.bytes()),
        integer(transaction.lsn),
        Value::text(timestamp(commit.provenance.at_ms)),
        Value::text(commit.provenance.author.as_str()),
        Value::text(commit.provenance.base_hash.as_str()),
    ]
}

/// The transactions of the session's branch that are in force, oldest first.
#[derive(Default)]
pub(super) struct ShowPatches {
    ready: Option<Ready>,
}

impl Operator for ShowPatches {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let ready = self.ready.get_or_insert_with(|| {
            let view = work.view();
            let transactions = view.branch().into_iter().flat_map(|branch| branch.transactions());
            Ready::new(transactions.map(|one| patch_row(one, view)).collect())
        });
        Ok(ready.batch())
    }
}

/// The branches, by name.
#[derive(Default)]
pub(super) struct ShowBranches {
    ready: Option<Ready>,
}

impl Operator for ShowBranches {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let ready = self.ready.get_or_insert_with(|| {
            let view = work.view();
            let current = &*view.identity().branch;
            let state = view.history().map(|history| history.state().clone()).unwrap_or_default();
            let row = |branch: &Arc<larql_storage::store::Branch>| {
                let origin = branch.origin.as_ref();
                vec![
                    Value::text(branch.name.as_str()),
                    origin.map_or(Value::Null, |origin| Value::text(origin.branch.as_str())),
                    origin.map_or(Value::Null, |origin| integer(origin.lsn)),
                    integer(branch.lsn),
                    integer(branch.transactions().len() as u64),
                    Value::Boolean(branch.name == current),
                ]
            };
            Ready::new(state.branches().map(row).collect())
        });
        Ok(ready.batch())
    }
}

/// The records of the log, oldest first.
#[derive(Default)]
pub(super) struct ShowWal {
    ready: Option<Ready>,
}

impl Operator for ShowWal {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let ready = self.ready.get_or_insert_with(|| {
            let rows = work.view().history().into_iter().flat_map(|history| history.records());
            Ready::new(rows.map(|(lsn, record)| wal_row(work, *lsn, record)).collect())
        });
        Ok(ready.batch())
    }
}

fn wal_row(work: &Work<'_>, lsn: u64, record: &Record) -> Row {
    let optional = |text: Option<&str>| text.map_or(Value::Null, Value::text);
    let (patch, operations) = match record {
        Record::Commit(commit) => (commit.patch.as_deref(), Some(commit.operations.len() as u64)),
        Record::RemovePatch { patch, .. } => (Some(patch.as_str()), None),
        _ => (None, None),
    };
    let from = record.provenance();
    let author = from.map(|from| from.author.as_str());
    let may_see = work.context.role() >= crate::session::Role::Admin
        || author.is_some_and(|author| author == work.context.principal().to_string());
    let statement = from.map(|from| from.statement.as_str()).filter(|_| may_see);
    vec![
        integer(lsn),
        Value::text(record.kind_name()),
        Value::text(record.branch()),
        optional(patch),
        operations.map_or(Value::Null, integer),
        optional(author),
        from.map_or(Value::Null, |from| Value::text(timestamp(from.at_ms))),
        optional(statement),
    ]
}
