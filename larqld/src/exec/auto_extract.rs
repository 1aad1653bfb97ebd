//! `USE MODEL … AUTO_EXTRACT`: before the first edit, the vindex that edits need is made.
//!
//! It lies under the data directory by the name of the checkpoint and the identity of its weights, so
//! that another session, or another day, finds it. It is made by the statements that a user would write,
//! with the rights of the session's user; of their answers only progress and notices are passed on.

use larql_compute::cpu::Cancel;
use larql_planner::syntax::ast::Statement;
use larql_planner::syntax::{SpannedStatement, parse_script};
use parking_lot::Mutex;

use super::{Output, OutputSink, SinkClosed};
use crate::engine::SessionContext;
use crate::failure::{Failure, code};
use crate::mounts::Kind;
use crate::paths;
use crate::session::Script;

/// Digits of the weights' identity in the vindex's name.
const IDENTITY_DIGITS: usize = 12;

/// Makes and uses the vindex of a checkpoint that is in use with `AUTO_EXTRACT` where the statement
/// needs one, and gives what is to be told of it; does nothing otherwise.
///
/// # Errors
/// What EXTRACT and USE answer.
pub(super) fn before(
    context: &SessionContext,
    statement: &SpannedStatement,
    cancel: &Cancel,
    sink: &dyn OutputSink,
) -> Result<Vec<Output>, Failure> {
    let model = {
        let state = context.state();
        let wanted = state.auto_extract && edits(&statement.statement);
        match state.current.as_ref().filter(|_| wanted) {
            Some(mounted) if mounted.model.kind() == Kind::Checkpoint => mounted.model.clone(),
            _ => return Ok(Vec::new()),
        }
    };
    let engine = context.engine();
    let stem = paths::stem(model.path());
    let hash = model.base_hash();
    let identity = hash.get(..IDENTITY_DIGITS).unwrap_or(hash);
    let path = engine.data_dir().join("vindexes").join(format!("{stem}-{identity}.vindex"));
    let quoted = |path: &std::path::Path| larql_client::quote(&path.display().to_string());
    let told = Told { sink, notices: Mutex::default() };
    if engine.files().metadata(&path).is_err() {
        let (source, destination) = (quoted(model.path()), quoted(&path));
        run(
            context,
            &format!("EXTRACT MODEL {source} INTO {destination} WITH ALL WITHOUT LABELS"),
            cancel,
            &told,
        )?;
    }
    run(context, &format!("USE {}", quoted(&path)), cancel, &told)?;
    let message = format!("the session uses {}, where edits are kept", path.display());
    let hint = "LABEL FROM DEFAULT teaches it what DESCRIBE shows".to_owned();
    let mut notices = told.notices.into_inner();
    notices.push(Output::Notice { message, hint });
    Ok(notices)
}

/// Whether a statement changes what a model knows.
fn edits(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Insert(_)
            | Statement::Update { .. }
            | Statement::Delete { .. }
            | Statement::Merge { .. }
            | Statement::Begin
            | Statement::BeginPatch(_)
            | Statement::ApplyPatch { .. }
            | Statement::CreateBranch { .. }
    )
}

/// Runs one statement of ours.
fn run(
    context: &SessionContext,
    text: &str,
    cancel: &Cancel,
    told: &Told<'_>,
) -> Result<(), Failure> {
    let statements = parse_script(text)?;
    let statement = statements.first().ok_or_else(|| Failure::new(code::INTERNAL, text))?;
    let script = Script { text: text.to_owned(), ..Script::default() };
    let began = std::time::Instant::now();
    super::answer_statement(context, &script, 0, statement, cancel, told, began)
        .map(drop)
        // A place in our statement is none in the user's.
        .map_err(|failure| Failure { position: None, ..failure })
}

/// Passes on how far it is, and keeps what is to be said within the answer of the user's statement.
struct Told<'s> {
    sink: &'s dyn OutputSink,
    notices: Mutex<Vec<Output>>,
}

impl OutputSink for Told<'_> {
    fn send(&self, output: Output) -> Result<(), SinkClosed> {
        match output {
            Output::Progress { .. } => self.sink.send(output),
            Output::Notice { .. } => {
                self.notices.lock().push(output);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Says something behind the next schema.
pub(super) struct Behind<'s> {
    sink: &'s dyn OutputSink,
    notices: Mutex<Vec<Output>>,
}

impl<'s> Behind<'s> {
    /// Says `notices` in what goes to `sink`.
    pub(super) fn new(sink: &'s dyn OutputSink, notices: Vec<Output>) -> Self {
        Self { sink, notices: Mutex::new(notices) }
    }
}

impl OutputSink for Behind<'_> {
    fn send(&self, output: Output) -> Result<(), SinkClosed> {
        let opens = matches!(output, Output::Schema { .. });
        self.sink.send(output)?;
        match opens {
            true => self.notices.lock().drain(..).try_for_each(|notice| self.sink.send(notice)),
            false => Ok(()),
        }
    }
}
