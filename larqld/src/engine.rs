//! The engine: everything that sessions share, and the context that each of them has.
//!
//! It owns the files, the catalog, the mounts and the compute pool. It decides nothing about
//! statements; `exec` runs them against it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use larql_client::Token;
use larql_compute::cpu::{Cancel, Pool};
use larql_planner::catalog::{
    Catalog as PlannerCatalog, CostConstants, Mount, Prepared, Settings, Table,
};
use larql_storage::catalog::{Catalog, MountKind, MountRecord};
use larql_storage::file::{FileKind, Files};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::activity::{Recent, StatementEnd, StatementRecord};
use crate::batch::Batching;
use crate::cache::Cache;
use crate::config::Config;
use crate::confined::ConfinedFiles;
use crate::edits::{Edits, Transaction, View};
use crate::failure::{Failure, code};
use crate::machine;
use crate::mounts::{Kind, Model, Mounted};
use crate::paths;
use crate::remote::Remote;
use crate::session::{self, Principal, Role};
use crate::tables::{self, FactsTable, Tables};
use crate::text::counted;

/// A mount as it is remembered: open, or not to be had at the moment.
#[derive(Debug, Clone)]
pub enum MountEntry {
    /// Ready to answer.
    Open(Arc<Mounted>),
    /// Remembered, and not readable now.
    Unavailable {
        /// Where it was.
        path: PathBuf,
        /// Why it cannot be read.
        failure: Failure,
    },
}

impl MountEntry {
    /// The directory.
    pub fn path(&self) -> &Path {
        match self {
            Self::Open(mounted) => mounted.model.path(),
            Self::Unavailable { path, .. } => path,
        }
    }
}

/// What all sessions share.
#[derive(Debug)]
pub struct Engine {
    files: Arc<dyn Files>,
    catalog: Mutex<Catalog>,
    mounts: ArcSwap<BTreeMap<String, MountEntry>>,
    /// Models opened by path, for as long as somebody uses them.
    opened: Mutex<HashMap<PathBuf, Weak<Model>>>,
    pool: Arc<Pool>,
    batching: Batching,
    cache: Cache,
    tables: Tables,
    edits: Edits,
    costs: CostConstants,
    data_dir: PathBuf,
    roots: ArcSwap<Vec<PathBuf>>,
    /// Holds the token that other daemons are shown.
    remote_token_file: Option<PathBuf>,
    started: Instant,
    /// Those that are open, by number.
    sessions: Mutex<BTreeMap<u64, Weak<SessionShared>>>,
    recent: Recent,
    statements: AtomicU64,
    /// How many sessions and calls there are that the daemon does not leave while it drains.
    tasks: watch::Sender<usize>,
}

/// A session or a call at work, for as long as this lives.
#[derive(Debug)]
pub struct Task(watch::Sender<usize>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.send_modify(|tasks| *tasks -= 1);
    }
}

impl Engine {
    /// Opens the catalog in the data directory and everything it remembers as mounted.
    ///
    /// A mount that cannot be opened is remembered as unavailable, with a warning: one model that is
    /// gone must not keep the daemon from serving the others.
    ///
    /// # Errors
    /// When the catalog cannot be opened.
    pub fn open(config: &Config, files: Arc<dyn Files>) -> Result<Arc<Self>, Failure> {
        let catalog = Catalog::open(&config.data_dir.join("catalog"))?;
        let pool = Arc::new(Pool::new(config.threads));
        let costs = machine::costs(&catalog, &pool);
        let tables = Tables::open(files.clone(), config.data_dir.join("tables"));
        let edits = Edits::new(files.clone(), &config.data_dir, config.history_lsns);
        let engine = Arc::new(Self {
            files,
            tables,
            edits,
            catalog: Mutex::new(catalog),
            mounts: ArcSwap::default(),
            opened: Mutex::default(),
            batching: Batching::new(config.batch, pool.clone()),
            cache: Cache::new(config.result_cache_bytes),
            pool,
            costs,
            data_dir: config.data_dir.clone(),
            roots: ArcSwap::from_pointee(config.roots.clone()),
            remote_token_file: config.remote_token_file.clone(),
            started: Instant::now(),
            sessions: Mutex::default(),
            recent: Recent::default(),
            statements: AtomicU64::new(0),
            tasks: watch::Sender::new(0),
        });
        // A record that is damaged is no reason to forget the others.
        let (records, problems) = engine.catalog.lock().mounts_and_problems()?;
        for problem in problems {
            tracing::error!("{problem}: {}", problem.hint());
        }
        let (checkpoints, vindexes): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.kind == MountKind::Checkpoint);
        for record in vindexes {
            engine.restore(record);
        }
        engine.restore_later(checkpoints);
        for path in &config.mounts {
            engine.mount(&engine.files, path, &paths::stem(path), &Cancel::new())?;
        }
        Ok(engine)
    }

    /// Opens what a record remembers, and publishes it or why it cannot be had.
    fn restore(&self, record: MountRecord) {
        let model = self.model(&self.files, &record.path, &Cancel::new());
        let model = model.and_then(|model| {
            self.edits.open_of(&model)?;
            Ok(model)
        });
        let entry = match model {
            Ok(model) => MountEntry::Open(Arc::new(Mounted::new(record.name.clone(), model))),
            Err(failure) => {
                tracing::warn!(mount = record.name, "not available: {}", failure.message);
                MountEntry::Unavailable { path: record.path, failure }
            }
        };
        self.publish(&record.name, Some(entry));
    }

    /// Opens checkpoints on a thread of their own: each is read whole for its identity, and nobody
    /// should wait for that before the daemon answers.
    fn restore_later(self: &Arc<Self>, records: Vec<MountRecord>) {
        if records.is_empty() {
            return;
        }
        for record in &records {
            let failure = Failure::new(code::BUSY, format!("{} is being opened", record.name))
                .hint("the daemon has just started: try again in a moment");
            let entry = MountEntry::Unavailable { path: record.path.clone(), failure };
            self.publish(&record.name, Some(entry));
        }
        let engine = Arc::downgrade(self);
        std::thread::spawn(move || {
            for record in records {
                let Some(engine) = engine.upgrade() else { return };
                // Somebody may have unmounted it in the meantime.
                if engine.mounts().contains_key(&record.name) {
                    engine.restore(record);
                }
            }
        });
    }

    /// The context of a new session.
    pub fn open_session(
        self: &Arc<Self>,
        id: u64,
        principal: &Principal,
        role: Role,
        owner: bool,
    ) -> SessionContext {
        let shared = Arc::new(SessionShared {
            engine: self.clone(),
            id,
            principal: principal.clone(),
            role,
            owner,
            state: Mutex::default(),
            opened: Instant::now(),
            running: Mutex::default(),
            statements: AtomicU64::new(0),
            ended: watch::Sender::new(false),
            _task: self.begin_task(),
        });
        self.sessions.lock().insert(id, Arc::downgrade(&shared));
        SessionContext { shared }
    }

    /// Says that something begins which the daemon should not leave while it drains.
    pub fn begin_task(&self) -> Task {
        self.tasks.send_modify(|tasks| *tasks += 1);
        Task(self.tasks.clone())
    }

    /// Waits until no session is open and no call runs.
    pub async fn until_idle(&self) {
        // The sender lives in this engine, so waiting cannot fail.
        let _ = self.tasks.subscribe().wait_for(|&tasks| tasks == 0).await;
    }

    /// The files.
    pub fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// The compute pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What runs models for all who ask.
    pub fn batching(&self) -> &Batching {
        &self.batching
    }

    /// Plans and answers that are kept.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Edits of mounted models.
    pub fn edits(&self) -> &Edits {
        &self.edits
    }

    /// The tables of facts.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// When the daemon started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Sessions open now.
    pub fn sessions(&self) -> u64 {
        self.sessions.lock().len() as u64
    }

    /// The sessions that are open now, by number.
    pub fn open_sessions(&self) -> Vec<SessionContext> {
        let sessions = self.sessions.lock();
        let open = sessions.values().filter_map(Weak::upgrade);
        open.map(|shared| SessionContext { shared }).collect()
    }

    /// Statements that ended lately, oldest first.
    pub fn recent_statements(&self) -> Vec<StatementRecord> {
        self.recent.all()
    }

    /// Statements answered since the start.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Counts an answered statement.
    pub fn count_statement(&self) {
        self.statements.fetch_add(1, Ordering::Relaxed);
    }

    /// All mounts as of now.
    pub fn mounts(&self) -> Arc<BTreeMap<String, MountEntry>> {
        self.mounts.load_full()
    }

    /// The mount of that name.
    ///
    /// # Errors
    /// `UNDEFINED_OBJECT` if there is none, or why it is unavailable.
    pub fn mounted(&self, name: &str) -> Result<Arc<Mounted>, Failure> {
        match self.mounts.load().get(name) {
            Some(MountEntry::Open(mounted)) => Ok(mounted.clone()),
            Some(MountEntry::Unavailable { failure, .. }) => Err(failure.clone()),
            None => Err(Failure::new(
                code::UNDEFINED_OBJECT,
                format!("nothing is mounted as \"{name}\""),
            )
            .hint("SHOW MOUNTS lists what is; MOUNT \"path\" AS name adds")),
        }
    }

    /// Opens the model in a directory or file, or shares it with those who have it open.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn model(
        &self,
        files: &Arc<dyn Files>,
        path: &Path,
        cancel: &Cancel,
    ) -> Result<Arc<Model>, Failure> {
        let path = real_path(files, path)?;
        if let Some(model) = self.opened(&self.opened.lock(), &path) {
            return Ok(model);
        }
        let model = Model::open(files, &path, cancel);
        machine::return_freed_memory();
        let model = model?;
        let source = self.catalog.lock().get_setting(&source_key(model.base_hash()));
        // Where the weights come from only makes hints better.
        let source = source.unwrap_or_else(|error| {
            tracing::warn!("{error}: {}", error.hint());
            None
        });
        let source = source.map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        let model = Arc::new(model.extracted_from(source));
        let mut opened = self.opened.lock();
        // Somebody else may have opened it meanwhile: who shares a model shares its passes.
        if let Some(model) = self.opened(&opened, &path) {
            return Ok(model);
        }
        opened.retain(|_, model| model.strong_count() > 0);
        opened.insert(path, Arc::downgrade(&model));
        Ok(model)
    }

    /// The model that is open at that path, if it is still what lies there.
    fn opened(&self, opened: &HashMap<PathBuf, Weak<Model>>, path: &Path) -> Option<Arc<Model>> {
        let model = opened.get(path).and_then(Weak::upgrade)?;
        (model.check().is_ok() && !model.is_replaced(&self.files)).then_some(model)
    }

    /// Mounts a directory under a name, durably.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a name that USE could not find, `EXISTS` when the name stands for
    /// another directory; as [`Model::open`]; when the catalog cannot be written.
    pub fn mount(
        &self,
        files: &Arc<dyn Files>,
        path: &Path,
        name: &str,
        cancel: &Cancel,
    ) -> Result<Arc<Mounted>, Failure> {
        if !paths::is_mount_name(name) {
            return Err(Failure::new(
                code::INVALID_PARAMETER,
                format!("{name:?} is no mount's name"),
            )
            .hint("MOUNT \"path\" AS name; a name has no / and does not begin with a dot"));
        }
        let model = self.model(files, path, cancel)?;
        self.edits.open_of(&model)?;
        let catalog = self.catalog.lock();
        let there = self.mounts.load().get(name).map(|entry| entry.path().to_owned());
        if let Some(there) = there
            && there != model.path()
        {
            let message = format!("\"{name}\" is mounted already, from {}", there.display());
            return Err(Failure::new(code::EXISTS, message)
                .hint("choose another name: MOUNT \"path\" AS name"));
        }
        catalog.put_mount(&MountRecord {
            name: name.to_owned(),
            path: model.path().to_owned(),
            kind: match model.kind() {
                Kind::Vindex => MountKind::Vindex,
                Kind::Checkpoint => MountKind::Checkpoint,
            },
            base_hash: model.base_hash().to_owned(),
        })?;
        // Other names of the directory follow: what they had open may have been replaced in it.
        for (other, entry) in self.mounts().iter() {
            if let MountEntry::Open(there) = entry
                && there.model.path() == model.path()
            {
                let mounted = Mounted::new(other.clone(), model.clone());
                self.publish(other, Some(MountEntry::Open(Arc::new(mounted))));
            }
        }
        let mounted = Arc::new(Mounted::new(name.to_owned(), model));
        self.publish(name, Some(MountEntry::Open(mounted.clone())));
        Ok(mounted)
    }

    /// Remembers which checkpoint a base was extracted from, so that hints can name it.
    ///
    /// # Errors
    /// When the catalog cannot be written.
    pub fn remember_source(&self, base_hash: &str, source: &Path) -> Result<(), Failure> {
        let bytes = source.as_os_str().as_bytes();
        Ok(self.catalog.lock().put_setting(&source_key(base_hash), bytes)?)
    }

    /// Forgets a mount, durably. Statements that run on it keep it until they end.
    ///
    /// # Errors
    /// `UNDEFINED_OBJECT` when there is no such mount; when the catalog cannot be written.
    pub fn unmount(&self, name: &str) -> Result<(), Failure> {
        let catalog = self.catalog.lock();
        if !self.mounts.load().contains_key(name) {
            let message = format!("nothing is mounted as \"{name}\"");
            return Err(
                Failure::new(code::UNDEFINED_OBJECT, message).hint("SHOW MOUNTS lists what is")
            );
        }
        catalog.remove_mount(name)?;
        let entry = self.mounts().get(name).cloned();
        self.publish(name, None);
        if let Some(MountEntry::Open(mounted)) = entry
            && !self.mounts().values().any(|other| other.path() == mounted.model.path())
        {
            self.batching.retire(&mounted.model);
        }
        drop(catalog);
        self.close_unused_edits();
        Ok(())
    }

    /// Closes logs of edits of which no model is mounted or in use any more: what is asked now and then.
    pub fn close_unused_edits(&self) {
        let mounts = self.mounts();
        let opened: Vec<Arc<Model>> = {
            let mut opened = self.opened.lock();
            opened.retain(|_, model| model.strong_count() > 0);
            opened.values().filter_map(Weak::upgrade).collect()
        };
        let mounted = mounts.values().filter_map(|entry| match entry {
            MountEntry::Open(mounted) => Some(&mounted.model),
            MountEntry::Unavailable { .. } => None,
        });
        let used: BTreeSet<&str> = mounted.chain(&opened).map(|model| model.base_hash()).collect();
        self.edits.close_unused(|base_hash| used.contains(base_hash));
    }

    /// What a MODEL argument or a USE names: a mount, or a directory, which only an administrator
    /// may open. The result may have no durable mount.
    ///
    /// # Errors
    /// When it is neither, or the directory may not be opened by that caller.
    pub fn find_model(&self, reference: &str, from: &Place<'_>) -> Result<Arc<Mounted>, Failure> {
        let by_name = paths::is_mount_name(reference).then(|| self.mounted(reference));
        match by_name {
            Some(Ok(mounted)) => return Ok(mounted),
            // A mount that is remembered and cannot be read says so, rather than "no such file".
            Some(Err(failure)) if failure.code != code::UNDEFINED_OBJECT => return Err(failure),
            _ => {}
        }
        let resolved = self.resolve(reference, from.directory, from.owner);
        if let Some(Err(unknown)) = by_name
            && !resolved.as_ref().is_ok_and(|path| path.exists())
        {
            return Err(unknown);
        }
        let path = resolved?;
        session::require(from.role, Role::Admin, "opening a directory that is not mounted")?;
        let (name, model) =
            (paths::stem(&path), self.model(&self.files_for(from.owner), &path, from.cancel)?);
        self.edits.open_of(&model)?;
        Ok(Arc::new(Mounted::new(name, model)))
    }

    /// The base hash of a mount, also of one that is not available, or the one that is named by itself.
    ///
    /// # Errors
    /// `UNDEFINED_OBJECT` when there is no such mount; why its weights cannot be read.
    pub fn base_hash_of(&self, reference: &str) -> Result<String, Failure> {
        let entry = self.mounts().get(reference).cloned();
        match entry {
            Some(MountEntry::Open(mounted)) => Ok(mounted.model.base_hash().to_owned()),
            Some(MountEntry::Unavailable { path, .. }) => {
                Ok(self.model(&self.files, &path, &Cancel::new())?.base_hash().to_owned())
            }
            None if reference.len() == 64 && reference.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Ok(reference.to_ascii_lowercase())
            }
            None => Err(self.mounted(reference).err().unwrap_or_else(Failure::cancelled)),
        }
    }

    /// A path of a statement, made absolute and checked against what the session may name.
    ///
    /// # Errors
    /// As [`paths::resolve`].
    pub fn resolve(
        &self,
        text: &str,
        base: Option<&Path>,
        owner: bool,
    ) -> Result<PathBuf, Failure> {
        let roots = self.roots.load();
        paths::resolve(text, base, if owner { None } else { Some(&roots) })
    }

    /// The files that the paths of a statement lead to: for the daemon's own user any, for others by
    /// handles beneath the roots, so that what was checked is what is opened.
    pub fn files_for(&self, owner: bool) -> Arc<dyn Files> {
        if owner {
            return self.files.clone();
        }
        Arc::new(ConfinedFiles::new(self.roots.load_full(), self.files.clone()))
    }

    /// The token that other daemons are shown; none where the configuration names no file.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a file that holds none, or that others can read.
    pub fn remote_token(&self) -> Result<Option<Token>, Failure> {
        let token = self.remote_token_file.as_deref().map(Token::read).transpose();
        token.map_err(|error| {
            Failure::new(code::INVALID_PARAMETER, error.to_string())
                .hint("remote_token_file names it in the configuration")
        })
    }

    /// Replaces the directories that sessions other than the owner's may name.
    pub fn replace_roots(&self, roots: Vec<PathBuf>) {
        self.roots.store(Arc::new(roots));
    }

    /// What a session sees of the edits of its mount.
    fn view(&self, state: &SessionState) -> Result<Arc<View>, Failure> {
        let Some(mounted) = &state.current else { return Ok(Arc::default()) };
        let base_hash = mounted.model.base_hash();
        if let Some(open) = state.transaction.as_ref().filter(|open| open.base_hash == base_hash) {
            return Ok(open.view().clone());
        }
        let branch = state.branch.as_deref().unwrap_or(larql_storage::store::MAIN);
        self.edits.view(base_hash, branch).map(Arc::new)
    }

    fn publish(&self, name: &str, entry: Option<MountEntry>) {
        self.mounts.rcu(|mounts| {
            let mut mounts = BTreeMap::clone(mounts);
            match &entry {
                Some(entry) => mounts.insert(name.to_owned(), entry.clone()),
                None => mounts.remove(name),
            };
            mounts
        });
    }
}

/// The one spelling of a path by which an open model is found: all links followed, except that a
/// file keeps its own name, because its extension says what it is and the hub's cache links it to
/// one without.
fn real_path(files: &Arc<dyn Files>, path: &Path) -> Result<PathBuf, Failure> {
    let real =
        |path: &Path| files.canonicalize(path).map_err(|error| Failure::io(path.display(), &error));
    let target = real(path)?;
    let found = files.metadata(&target);
    let is_file = found.is_ok_and(|found| found.kind == FileKind::File);
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if is_file => Ok(real(parent)?.join(name)),
        _ => Ok(target),
    }
}

/// The catalog's key for the checkpoint that a base was extracted from.
fn source_key(base_hash: &str) -> String {
    format!("source of {base_hash}")
}

/// Who names a model, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// What relative paths are relative to.
    pub directory: Option<&'a Path>,
    /// What the caller may do.
    pub role: Role,
    /// Whether the caller is the daemon's own user.
    pub owner: bool,
    /// Says when to stop.
    pub cancel: &'a Cancel,
}

#[derive(Debug)]
struct SessionShared {
    engine: Arc<Engine>,
    id: u64,
    principal: Principal,
    role: Role,
    owner: bool,
    state: Mutex<SessionState>,
    opened: Instant,
    running: Mutex<Option<StatementRecord>>,
    /// Statements begun.
    statements: AtomicU64,
    /// Whether somebody ended it.
    ended: watch::Sender<bool>,
    _task: Task,
}

impl Drop for SessionShared {
    fn drop(&mut self) {
        self.engine.sessions.lock().remove(&self.id);
        if let Some(open) = self.state.get_mut().transaction.take()
            && !open.operations().is_empty()
        {
            let notice = format!(
                "{} of session {} was dropped with {}: the session ended before COMMIT or SAVE PATCH",
                open.title(),
                self.id,
                counted(open.operations().len(), "operation")
            );
            self.engine.edits.tell_later(&self.principal, notice);
        }
    }
}

/// What a session remembers between statements.
#[derive(Debug, Default)]
pub struct SessionState {
    /// The mount in use.
    pub current: Option<Arc<Mounted>>,
    /// The session's settings.
    pub settings: Settings,
    /// The branch in use; `None` for `main`.
    pub branch: Option<String>,
    /// What it has begun and not ended.
    pub transaction: Option<Transaction>,
    /// Whether the checkpoint in use becomes a vindex when it is edited.
    pub auto_extract: bool,
    /// Where the session was sent by `USE REMOTE`.
    pub remote: Option<Arc<Mutex<Remote>>>,
    /// What is prepared, by name in lower case.
    prepared: Arc<HashMap<String, Arc<Prepared>>>,
}

/// Statements that a session may have prepared at a time.
const PREPARED_MAX: usize = 256;

/// Bytes of text that they may have together.
const PREPARED_BYTES_MAX: usize = 1 << 20;

impl SessionState {
    /// Keeps a statement under a name.
    ///
    /// # Errors
    /// `EXISTS` where the name is taken, `LIMIT` where too much is prepared already.
    pub fn prepare(&mut self, name: String, prepared: Arc<Prepared>) -> Result<(), Failure> {
        if self.prepared.contains_key(&name.to_lowercase()) {
            let message = format!("a statement is prepared as \"{name}\" already");
            return Err(Failure::new(code::EXISTS, message).hint(format!("DEALLOCATE {name}")));
        }
        let bytes = |prepared: &Prepared| {
            let span = prepared.statement.span;
            span.end.saturating_sub(span.start) as usize
        };
        let held: usize = self.prepared.values().map(|one| bytes(one)).sum();
        if self.prepared.len() >= PREPARED_MAX || held + bytes(&prepared) > PREPARED_BYTES_MAX {
            let message = format!(
                "a session prepares at most {PREPARED_MAX} statements of {PREPARED_BYTES_MAX} bytes together"
            );
            return Err(Failure::new(code::LIMIT, message).hint("DEALLOCATE some"));
        }
        Arc::make_mut(&mut self.prepared).insert(name.to_lowercase(), prepared);
        Ok(())
    }

    /// Forgets what is prepared under a name.
    pub fn deallocate(&mut self, name: &str) {
        Arc::make_mut(&mut self.prepared).remove(&name.to_lowercase());
    }
}

/// One session's way to the engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionContext {
    shared: Arc<SessionShared>,
}

impl SessionContext {
    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.shared.engine
    }

    /// The session's number.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Who the caller is.
    pub fn principal(&self) -> &Principal {
        &self.shared.principal
    }

    /// What the session may do.
    pub fn role(&self) -> Role {
        self.shared.role
    }

    /// Whether the caller is the daemon's own user.
    pub fn owner(&self) -> bool {
        self.shared.owner
    }

    /// When it was opened.
    pub fn opened(&self) -> Instant {
        self.shared.opened
    }

    /// Statements begun so far.
    pub fn statements(&self) -> u64 {
        self.shared.statements.load(Ordering::Relaxed)
    }

    /// The statement that runs now.
    pub fn running(&self) -> Option<StatementRecord> {
        self.shared.running.lock().clone()
    }

    /// Says that a statement begins; it runs until the returned value is dropped.
    pub fn begin_statement(&self, text: &str) -> RunningStatement<'_> {
        let record = StatementRecord::begin(self.id(), self.principal(), text);
        self.shared.statements.fetch_add(1, Ordering::Relaxed);
        *self.shared.running.lock() = Some(record);
        // Who ends without a word met a defect.
        let end = StatementEnd { code: Some(code::INTERNAL), ..StatementEnd::default() };
        RunningStatement { context: self, end }
    }

    /// Ends the session: what it runs is stopped, and its client is told.
    pub fn end(&self) {
        self.shared.ended.send_replace(true);
    }

    /// Resolves when somebody ends the session.
    pub async fn until_ended(&self) {
        // The sender lives in this session, so waiting cannot fail.
        let _ = self.shared.ended.subscribe().wait_for(|&ended| ended).await;
    }

    /// What the session remembers. Held for moments only, never while something runs.
    pub fn state(&self) -> parking_lot::MutexGuard<'_, SessionState> {
        self.shared.state.lock()
    }

    /// The catalog as the planner sees it in this moment.
    pub fn snapshot(&self) -> CatalogSnapshot {
        let mut state = self.state();
        let mounts = self.engine().mounts();
        // Who uses a mount sees it as it is now: extracted again, or restored and mounted again.
        if let Some(current) = &state.current
            && let Some(MountEntry::Open(now)) = mounts.get(&current.name)
            && now.model.path() == current.model.path()
        {
            state.current = Some(now.clone());
        }
        CatalogSnapshot {
            edits: self.engine().view(&state),
            current: state.current.clone(),
            settings: state.settings.clone(),
            prepared: state.prepared.clone(),
            tables: self.engine().tables.snapshot(),
            files: self.engine().files.clone(),
            mounts,
            costs: self.engine().costs,
            has_cache: self.engine().cache.is_on() && state.settings.result_cache(),
        }
    }
}

/// A statement that runs, as others see it.
pub struct RunningStatement<'s> {
    context: &'s SessionContext,
    end: StatementEnd,
}

impl RunningStatement<'_> {
    /// Says how it ended.
    pub fn end(&mut self, rows: u64, bytes: u64, code: Option<&'static str>) {
        self.end = StatementEnd { elapsed: Duration::ZERO, rows, bytes, code };
    }
}

impl Drop for RunningStatement<'_> {
    fn drop(&mut self) {
        if let Some(mut record) = self.context.shared.running.lock().take() {
            let elapsed = record.began.elapsed();
            record.ended = Some(StatementEnd { elapsed, ..self.end.clone() });
            self.context.engine().recent.push(record);
        }
    }
}

/// What the planner plans against: one moment of the catalog and of the session.
#[derive(Debug)]
pub struct CatalogSnapshot {
    /// The mount in use.
    pub current: Option<Arc<Mounted>>,
    /// What the session sees of the mount's edits, or why it cannot.
    pub edits: Result<Arc<View>, Failure>,
    settings: Settings,
    prepared: Arc<HashMap<String, Arc<Prepared>>>,
    tables: tables::Snapshot,
    files: Arc<dyn Files>,
    mounts: Arc<BTreeMap<String, MountEntry>>,
    costs: CostConstants,
    has_cache: bool,
}

impl CatalogSnapshot {
    /// The session's settings.
    pub fn settings_now(&self) -> &Settings {
        &self.settings
    }

    /// Whether plans and answers are kept for the session.
    pub fn has_cache(&self) -> bool {
        self.has_cache
    }

    /// The tables of facts.
    pub fn tables(&self) -> &tables::Snapshot {
        &self.tables
    }

    /// A table of facts by its name.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn facts(&self, name: &str) -> Result<Option<Arc<FactsTable>>, Failure> {
        self.tables.get(name, &*self.files)
    }
}

impl PlannerCatalog for CatalogSnapshot {
    fn current(&self) -> Option<Arc<dyn Mount>> {
        let current = self.current.clone()?;
        Some(match &self.edits {
            Ok(view) if !view.overlay().is_empty() => Arc::new(current.under(view.overlay())),
            _ => current as Arc<dyn Mount>,
        })
    }

    fn mount(&self, name: &str) -> Option<Arc<dyn Mount>> {
        match self.mounts.get(name) {
            Some(MountEntry::Open(mounted)) => Some(mounted.clone()),
            _ => None,
        }
    }

    fn table(&self, schema: Option<&str>, name: &str) -> Result<Option<Arc<dyn Table>>, String> {
        if schema.is_some() {
            return Ok(None);
        }
        let found = self.facts(name).map_err(|failure| failure.message)?;
        Ok(found.map(|table| table as Arc<dyn Table>))
    }

    fn table_names(&self) -> Vec<String> {
        self.tables.names().map(str::to_owned).collect()
    }

    fn prepared(&self, name: &str) -> Option<Arc<Prepared>> {
        self.prepared.get(&name.to_lowercase()).cloned()
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn costs(&self) -> &CostConstants {
        &self.costs
    }
}
