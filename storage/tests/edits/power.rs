//! Loss of power under sled: its file as it was at the last sync, with any of the sectors that were written
//! since. Sled writes where we cannot stand between, so the file is looked at from outside.

use super::support::*;
use larql_storage::file::DiskFiles;
use larql_storage::store::{CheckpointKind, MAIN, Store, StoreError};
use larql_storage::wal::{INLINE_BYTES_MAX, WalError};
use std::path::Path;

const SECTOR: usize = 512;

/// What lies in the store's directory now, by path.
fn image(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in directory.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(image(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// Sled's file with some of the sectors that differ.
fn mixed(before: &[u8], after: &[u8], keep: &mut impl FnMut() -> bool) -> Vec<u8> {
    let mut mixed = before.to_vec();
    mixed.resize(after.len().max(before.len()), 0);
    for (at, sector) in after.chunks(SECTOR).enumerate() {
        let place = at * SECTOR..at * SECTOR + sector.len();
        if mixed[place.clone()] != *sector && keep() {
            mixed[place].copy_from_slice(sector);
        }
    }
    mixed
}

#[test]
fn power_lost_between_syncs_of_sled_loses_nothing_acknowledged() {
    let place = Place::sled();
    let store = place.open();
    let (mut refused, mut opened) = (0, 0);
    let mut random = 7u64;
    for n in 1..=40u64 {
        if n % 15 == 0 {
            store.checkpoint(CheckpointKind::Whole).unwrap();
        }
        let before = image(&place.directory);
        let width = if n % 9 == 0 { INLINE_BYTES_MAX } else { 60 };
        let operations = (0..n % 5 + 1).map(|at| knn(&format!("E{n}.{at}"), "T", width));
        commit(&store, edit(operations.collect())).unwrap();
        let after = image(&place.directory);
        for variant in 0..6u64 {
            let scratch = tempfile::tempdir().unwrap();
            std::fs::create_dir(scratch.path().join("segments")).unwrap();
            let mut keep = || {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                match variant {
                    0 => false,
                    1 => true,
                    _ => random % 4 < variant - 1,
                }
            };
            for (path, old) in &before {
                let target = scratch.path().join(path.strip_prefix(&place.directory).unwrap());
                std::fs::create_dir_all(target.parent().unwrap()).unwrap();
                let new = after.iter().find(|(one, _)| one == path);
                // What is not sled's went through the seam, where such losses are tried one by one.
                let is_sled = path.ends_with("log/db");
                let bytes = match new {
                    Some((_, new)) if is_sled => mixed(old, new, &mut keep),
                    _ => old.clone(),
                };
                std::fs::write(target, bytes).unwrap();
            }
            match Store::open(&DiskFiles::shared(), scratch.path(), BASE, place.engine) {
                Ok(store) => {
                    opened += 1;
                    let lsn = store.history().state().lsn;
                    assert!(lsn == n - 1 || lsn == n, "{n} {variant}: {lsn}");
                    let last = format!("E{}.0", n - 1);
                    assert!(n == 1 || answer(&store, MAIN, &last).is_some(), "{n} {variant}");
                }
                Err(
                    error @ (StoreError::Wal(WalError::Lost(_) | WalError::Io { .. })
                    | StoreError::Io { .. }),
                ) => {
                    println!("{n} {variant}: {error}");
                    refused += 1
                }
                Err(other) => panic!("{n} {variant}: {other}"),
            }
        }
    }
    println!("{opened} opened whole, {refused} refused");
    assert_eq!(refused, 0, "of {}", opened + refused);
}
