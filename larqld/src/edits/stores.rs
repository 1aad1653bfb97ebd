//! The stores that are open, by base hash.
//!
//! A store is opened when it is asked for and closed when nobody needs it: with the last model of its base, or when
//! more than [`OPEN_MAX`] are open and it was used longest ago. Closing it takes nothing from anybody: who holds
//! it goes on with it, and who asks again has it again.
//!
//! Promises: a base never has two open stores. One that is still held is the one that is given again; one that is
//! being dropped, on whatever thread, is waited for.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};

use arc_swap::ArcSwap;
use larql_storage::store::Store;
use parking_lot::{Mutex, MutexGuard};

use crate::failure::Failure;

/// Stores that are open at a time, beyond those that somebody holds: each has files, a thread and its history.
const OPEN_MAX: usize = 32;

/// An open store.
#[derive(Debug)]
pub struct OpenStore {
    store: Store,
    /// When it was asked for last, in asks.
    asked: AtomicU64,
    // Last: it is gone when the store is closed.
    _open: mpsc::Sender<Infallible>,
}

impl Deref for OpenStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// A base's latest store, whether it is open or not.
#[derive(Debug)]
struct Latest {
    store: Weak<OpenStore>,
    /// Says when it is closed, by ending.
    closed: mpsc::Receiver<Infallible>,
}

/// Latest stores by base hash. While it is held nothing is opened.
pub(super) type Opening<'s> = MutexGuard<'s, LatestStores>;

/// By base hash.
#[derive(Debug, Default)]
pub(super) struct LatestStores(HashMap<String, Latest>);

/// Those that are open.
#[derive(Debug, Default)]
pub(super) struct Stores {
    open: ArcSwap<BTreeMap<String, Arc<OpenStore>>>,
    /// One opening at a time.
    opening: Mutex<LatestStores>,
    asks: AtomicU64,
}

impl Stores {
    /// The store of a base, if it is open.
    pub(super) fn get(&self, base_hash: &str) -> Option<Arc<OpenStore>> {
        let store = self.open.load().get(base_hash).cloned()?;
        self.touch(&store);
        Some(store)
    }

    /// Lets nobody open a store for as long as it is held.
    pub(super) fn hold(&self) -> Opening<'_> {
        self.opening.lock()
    }

    /// The store of a base, opened by `open` where it is not.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn open(
        &self,
        opening: &mut Opening<'_>,
        base_hash: &str,
        open: impl FnOnce() -> Result<Store, Failure>,
    ) -> Result<Arc<OpenStore>, Failure> {
        if let Some(store) = self.held(opening, base_hash) {
            return Ok(store);
        }
        let (sender, closed) = mpsc::channel();
        let store = OpenStore { store: open()?, asked: AtomicU64::new(0), _open: sender };
        let store = Arc::new(store);
        self.touch(&store);
        let latest = Latest { store: Arc::downgrade(&store), closed };
        opening.0.insert(base_hash.to_owned(), latest);
        self.put(base_hash, &store);
        Ok(store)
    }

    /// The store of a base that is open, or was closed and is still held by somebody.
    pub(super) fn held(
        &self,
        opening: &mut Opening<'_>,
        base_hash: &str,
    ) -> Option<Arc<OpenStore>> {
        self.get(base_hash).or_else(|| self.still_held(opening, base_hash))
    }

    /// A store that was closed while somebody held it, open again; waits until it is closed where nobody does any
    /// more.
    fn still_held(&self, opening: &mut Opening<'_>, base_hash: &str) -> Option<Arc<OpenStore>> {
        let latest = opening.0.get(base_hash)?;
        if let Some(store) = latest.store.upgrade() {
            self.touch(&store);
            self.put(base_hash, &store);
            return Some(store);
        }
        // Nothing is ever sent: it ends when the store does, and has ended if it did before.
        let _ = latest.closed.recv();
        opening.0.remove(base_hash);
        None
    }

    fn put(&self, base_hash: &str, store: &Arc<OpenStore>) {
        self.change(|stores| _ = stores.insert(base_hash.to_owned(), store.clone()));
        self.close_oldest();
    }

    fn touch(&self, store: &OpenStore) {
        store.asked.store(self.asks.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn change(&self, change: impl Fn(&mut BTreeMap<String, Arc<OpenStore>>)) {
        self.open.rcu(|stores| {
            let mut stores = BTreeMap::clone(stores);
            change(&mut stores);
            stores
        });
    }

    /// Closes those that were used longest ago, where there are too many.
    fn close_oldest(&self) {
        let stores = self.open.load_full();
        let mut by_age: Vec<(u64, &String)> = stores
            .iter()
            .map(|(base_hash, store)| (store.asked.load(Ordering::Relaxed), base_hash))
            .collect();
        by_age.sort_unstable();
        for (_, base_hash) in by_age.iter().take(stores.len().saturating_sub(OPEN_MAX)) {
            self.change(|stores| _ = stores.remove(*base_hash));
        }
    }

    /// Closes those of which nobody needs the base.
    pub(super) fn close_unused(&self, is_used: impl Fn(&str) -> bool) {
        let mut opening = self.hold();
        let gone: Vec<String> =
            self.open.load().keys().filter(|base_hash| !is_used(base_hash)).cloned().collect();
        if !gone.is_empty() {
            self.change(|stores| stores.retain(|base_hash, _| !gone.contains(base_hash)));
        }
        let is_open =
            |latest: &mut Latest| latest.closed.try_recv() != Err(mpsc::TryRecvError::Disconnected);
        opening.0.retain(|_, latest| is_open(latest));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use larql_storage::file::{Files, MemoryFiles};
    use larql_storage::store::{Engine, MAIN, Record};

    use super::*;
    use crate::edits::provenance;

    const BASE: &str = "a";

    fn files() -> Arc<dyn Files> {
        Arc::new(MemoryFiles::new())
    }

    fn opened(stores: &Stores, files: &Arc<dyn Files>, base_hash: &str) -> Arc<OpenStore> {
        let directory = Path::new("/edits").join(base_hash);
        let open = || Ok(Store::open(files, &directory, base_hash, Engine::File)?);
        stores.open(&mut stores.hold(), base_hash, open).expect("it opens")
    }

    fn branch(name: String) -> Record {
        let provenance = provenance(&"test", name.clone(), BASE);
        Record::CreateBranch { name, from: MAIN.to_owned(), at: 0, provenance }
    }

    #[test]
    fn a_store_that_is_held_is_the_one_that_is_given_again() {
        let (stores, files) = (Stores::default(), files());
        let held = opened(&stores, &files, BASE);
        stores.close_unused(|_| true);
        assert!(stores.get(BASE).is_some());
        stores.close_unused(|_| false);
        assert!(stores.get(BASE).is_none());
        let again = opened(&stores, &files, BASE);
        assert!(Arc::ptr_eq(&held, &again) && stores.get(BASE).is_some());
    }

    #[test]
    fn a_store_that_nobody_holds_is_closed_and_its_files_are_free() {
        let (stores, files) = (Stores::default(), files());
        drop(opened(&stores, &files, BASE));
        let open = || Store::open(&files, &Path::new("/edits").join(BASE), BASE, Engine::File);
        assert!(open().is_err(), "it is open here");
        stores.close_unused(|_| false);
        assert!(open().is_ok());
    }

    #[test]
    fn of_too_many_those_that_were_used_longest_ago_are_closed() {
        let (stores, files) = (Stores::default(), files());
        let names: Vec<String> = (0..=OPEN_MAX).map(|number| format!("base{number}")).collect();
        names[..OPEN_MAX].iter().for_each(|name| drop(opened(&stores, &files, name)));
        assert!(stores.get(&names[0]).is_some(), "as many may be open, and this one was just used");
        drop(opened(&stores, &files, &names[OPEN_MAX]));
        let open: Vec<bool> = names.iter().map(|name| stores.get(name).is_some()).collect();
        let closed: Vec<usize> = (0..names.len()).filter(|&at| !open[at]).collect();
        assert_eq!(closed, [1]);
    }

    /// Writers that open, commit and let go, while somebody closes: never two stores of one base, and nothing
    /// that was told is lost.
    #[test]
    fn what_is_committed_while_stores_are_closed_and_opened_is_in_the_one_history() {
        const WRITERS: usize = 4;
        const EACH: usize = 50;
        let (stores, files) = (Stores::default(), files());
        let ended = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (stores, files, ended) = (&stores, &files, &ended);
                scope.spawn(move || {
                    for number in 0..EACH {
                        let store = opened(stores, files, BASE);
                        let seen = store.history().state().lsn;
                        store.commit(branch(format!("{writer}-{number}")), seen).expect("kept");
                    }
                    ended.fetch_add(1, Ordering::Release);
                });
            }
            while ended.load(Ordering::Acquire) < WRITERS as u64 {
                stores.close_unused(|_| false);
            }
        });
        let history = opened(&stores, &files, BASE).history();
        assert_eq!(history.state().lsn, (WRITERS * EACH) as u64);
        assert_eq!(history.state().branches().count(), WRITERS * EACH + 1);
    }
}
