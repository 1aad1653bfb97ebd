//! How fast edits become durable, beside what the disk can do: `cargo run --release -p larql-storage --example
//! durable_edits [writers] [seconds] [directory]`. One JSON object: commits a second and their 99th percentile with
//! so many writers, and the same of one and of two fdatasyncs of a small record, alone and with the same load.

use larql_storage::file::DiskFiles;
use larql_storage::overlay::{Fact, Operation, SetKnn};
use larql_storage::store::{Commit, Engine, MAIN, Provenance, Record, Store};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Values of a fact's key, as wide as a small model.
const WIDTH: usize = 256;

fn fact(writer: usize, n: u64) -> Record {
    let entity = format!("E{writer}.{n}");
    let knn = SetKnn {
        layer: 1,
        key: vec![0.5; WIDTH].into(),
        threshold: 0.8,
        fact: Fact { entity, relation: "capital".into(), target: "T".into() },
        entity_ids: vec![vec![1, 2]],
        target_ids: vec![3],
        confidence: None,
    };
    Record::Commit(Commit {
        branch: MAIN.into(),
        patch: None,
        operations: [Operation::SetKnn(knn)].into(),
        provenance: Provenance::default(),
        digest: None,
    })
}

/// Runs something on so many threads for a time; returns how often a second, and the 99th percentile.
fn measure(threads: usize, time: Duration, run: impl Fn(usize, u64) + Sync) -> (f64, Duration) {
    let began = Instant::now();
    let mut taken: Vec<Duration> = std::thread::scope(|scope| {
        let run = &run;
        let workers = (0..threads).map(|worker| {
            scope.spawn(move || {
                let mut taken = Vec::new();
                for n in 0.. {
                    let start = Instant::now();
                    if start - began >= time {
                        break;
                    }
                    run(worker, n);
                    taken.push(start.elapsed());
                }
                taken
            })
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().flat_map(|one| one.join().expect("it measures")).collect()
    });
    taken.sort_unstable();
    let rate = taken.len() as f64 / began.elapsed().as_secs_f64();
    let at = (taken.len() * 99 / 100).min(taken.len().saturating_sub(1));
    (rate, taken.get(at).copied().unwrap_or_default())
}

/// Syncs of a record of two kilobytes, appended to a file of each thread's own.
fn syncs(directory: &Path, threads: usize, each: u64, time: Duration) -> (f64, Duration) {
    let files: Vec<File> = (0..threads)
        .map(|at| File::create(directory.join(format!("sync{at}"))).expect("a file"))
        .collect();
    measure(threads, time, |worker, n| {
        for step in 0..each {
            let offset = (n * each + step) * 2048;
            files[worker].write_all_at(&[1; 2048], offset).expect("written");
            files[worker].sync_data().expect("synced");
        }
    })
}

/// Marks that were written: one for each group (docs/formats/wal.md, Mark).
fn groups(directory: &Path) -> u64 {
    let mark = std::fs::read(directory.join("mark")).expect("it is there");
    let epoch = |slot: usize| u64::from_le_bytes(mark[slot + 8..slot + 16].try_into().expect("8"));
    epoch(0).max(epoch(4096)) - 1
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |usual: u64| arguments.next().map_or(usual, |text| text.parse::<u64>().expect("a number"));
    let (writers, time) = (number(16) as usize, Duration::from_secs(number(5)));
    let place = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let place = tempfile::tempdir_in(place).expect("a directory");
    let (alone, alone_p99) = syncs(place.path(), 1, 1, time);
    let (_, two_p99) = syncs(place.path(), writers, 2, time);
    let directory = place.path().join("edits");
    let store =
        Store::open(&DiskFiles::shared(), &directory, "base", Engine::Sled).expect("a store");
    let (commits, commit_p99) = measure(writers, time, |writer, n| {
        let seen = store.history().state().lsn;
        store.commit(fact(writer, n), seen).expect("it commits");
    });
    let commits_per_group = store.history().state().lsn as f64 / groups(&directory) as f64;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{{\"writers\":{writers},\"commits_per_s\":{commits:.1},\"commit_p99_ms\":{:.2},\"fdatasyncs_per_s\":{alone:.1},\
         \"fdatasync_p99_ms\":{:.2},\"two_fdatasyncs_p99_ms\":{:.2},\"commits_per_half_fdatasync\":{:.1},\
         \"p99_per_two_fdatasyncs\":{:.2},\"commits_per_group\":{commits_per_group:.1}}}",
        ms(commit_p99),
        ms(alone_p99),
        ms(two_p99),
        commits / (alone / 2.0),
        ms(commit_p99) / ms(two_p99),
    );
}
