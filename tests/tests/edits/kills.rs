//! A daemon that is killed at random moments under writers: what it acknowledged is there afterwards, nothing
//! is half there, and it always opens again.
//!
//! `LARQL_DAEMON_CRASH_ROUNDS` says how often (`cargo xtask crash` sets it), `LARQL_CRASH_SEED` where randomness begins.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larql_client::ExecuteOptions;
use larql_tests::daemon::Daemon;

use super::{at, fact_and_feature, session, text, write};

const ROUNDS: u64 = 8;
const WRITERS: usize = 3;
/// Features that one writer's patches hide, each one of them; after so many patches the first is hidden again.
const FEATURES_EACH: usize = 300;

/// The feature that a patch hides.
fn feature(writer: usize, n: usize) -> usize {
    writer * FEATURES_EACH + n % FEATURES_EACH
}

/// What one writer asked for and was told.
#[derive(Debug, Default, Clone)]
struct Told {
    applied: BTreeSet<usize>,
    removed: BTreeSet<usize>,
    /// What it asked for last and was not told of.
    in_doubt: Option<usize>,
    next: usize,
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Applies patches, and takes every fourth back, until the daemon is gone.
async fn write_until_killed(daemon: &Daemon, writer: usize, files: &Path, told: &Mutex<Vec<Told>>) {
    let mut client = session(daemon).await;
    loop {
        let n = told.lock().expect("no holder panics")[writer].next;
        let name = format!("w{writer}_{n}");
        write(
            &files.join(format!("{name}.vlp")),
            &fact_and_feature(&format!("E{writer}.{n}"), feature(writer, n)),
        );
        let mark = |of: &dyn Fn(&mut Told)| of(&mut told.lock().expect("no holder panics")[writer]);
        mark(&|told| (told.in_doubt, told.next) = (Some(n), n + 1));
        let apply = format!("APPLY PATCH \"{name}.vlp\"");
        if client.query(apply, at(files)).await.is_err() {
            return;
        }
        mark(&|told| _ = told.applied.insert(n));
        if n % 4 == 3 {
            let remove = format!("REMOVE PATCH \"{name}\"");
            if client.query(remove, at(files)).await.is_err() {
                return;
            }
            mark(&|told| _ = (told.applied.remove(&n), told.removed.insert(n)));
        }
        mark(&|told| told.in_doubt = None);
    }
}

/// After a restart.
async fn check(daemon: &Daemon, told: &mut [Told], round: u64) {
    let mut client = session(daemon).await;
    let script = "SHOW PATCHES |> SELECT name; SHOW COMPACT STATUS |> SELECT mode, entries";
    let answers = client.query(script, ExecuteOptions::default()).await.expect("it answers");
    let mut present: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); told.len()];
    for row in &answers[0].rows {
        let name = text(&row[0]);
        let (writer, n) = name[1..].split_once('_').expect("of a writer");
        present[writer.parse::<usize>().expect("a number")].insert(n.parse().expect("a number"));
    }
    for (writer, told) in told.iter_mut().enumerate() {
        let there = &present[writer];
        let what = format!("round {round}, writer {writer}: {told:?}, and there is {there:?}");
        let doubt: BTreeSet<usize> = told.in_doubt.into_iter().collect();
        assert!(told.applied.difference(there).all(|n| doubt.contains(n)), "lost: {what}");
        assert!(there.difference(&told.applied).all(|n| doubt.contains(n)), "unasked: {what}");
        assert!(there.is_disjoint(&told.removed), "a removal is lost: {what}");
        // What was in doubt is decided now.
        for n in doubt {
            if there.contains(&n) {
                told.applied.insert(n)
            } else {
                told.applied.remove(&n)
            };
        }
        told.in_doubt = None;
    }
    let entries = |mode: &str| {
        let of = answers[1].rows.iter().find(|row| text(&row[0]) == mode);
        of.and_then(|row| row[1].as_integer()).expect("entries")
    };
    let all =
        || present.iter().enumerate().flat_map(|(w, there)| there.iter().map(move |&n| (w, n)));
    let hidden: BTreeSet<usize> = all().map(|(writer, n)| feature(writer, n)).collect();
    let whole = (all().count() as i64, hidden.len() as i64);
    assert_eq!((entries("knn"), entries("rows")), whole, "half a patch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_killed_under_writers_loses_nothing_acknowledged_and_shows_nothing_half() {
    let rounds = number("LARQL_DAEMON_CRASH_ROUNDS", ROUNDS);
    let mut random = number("LARQL_CRASH_SEED", 1);
    let home = tempfile::tempdir().expect("a directory");
    let files = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(home.path(), &[]);
    daemon.extract_atlas("").await;
    let told = Arc::new(Mutex::new(vec![Told::default(); WRITERS]));
    for round in 0..rounds {
        let daemon_now = Arc::new(daemon);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (daemon, told) = (daemon_now.clone(), told.clone());
                let files = files.path().to_owned();
                tokio::spawn(async move {
                    write_until_killed(&daemon, writer, &files, &told).await;
                })
            })
            .collect();
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(100 + (random >> 33) % 900)).await;
        daemon_now.signal(libc::SIGKILL);
        for writer in writers {
            writer.await.expect("no writer panics");
        }
        let mut killed = Arc::into_inner(daemon_now).expect("the writers are gone");
        killed.wait();
        daemon = Daemon::start_in(home.path(), &[]);
        let mut now = told.lock().expect("no holder panics").clone();
        check(&daemon, &mut now, round).await;
        *told.lock().expect("no holder panics") = now;
    }
    let told = told.lock().expect("no holder panics");
    let all: usize = told.iter().map(|told| told.applied.len() + told.removed.len()).sum();
    println!("{rounds} kills, {all} patches acknowledged");
    assert!(all > rounds as usize, "the writers did too little: {told:?}");
}
