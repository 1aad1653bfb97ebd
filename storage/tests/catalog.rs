//! The catalog keeps what it acknowledged: across restarts, kills and beside a second process.

use larql_storage::catalog::{Catalog, CatalogError, MountKind, MountRecord, SETTING_BYTES_MAX};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CHILD_DIRECTORY: &str = "LARQL_STORAGE_TEST_CATALOG";

fn mount(name: &str) -> MountRecord {
    let path = PathBuf::from(format!("/models/{name}.vindex"));
    MountRecord { name: name.to_owned(), path, kind: MountKind::Vindex, base_hash: "ab".repeat(32) }
}

fn names(catalog: &Catalog) -> Vec<String> {
    catalog.mounts().unwrap().into_iter().map(|record| record.name).collect()
}

#[test]
fn mounts_and_settings_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog");
    let catalog = Catalog::open(&path).unwrap();
    for name in ["b", "ä", "a"] {
        catalog.put_mount(&mount(name)).unwrap();
    }
    let replaced = MountRecord { kind: MountKind::Checkpoint, ..mount("b") };
    catalog.put_mount(&replaced).unwrap();
    assert!(catalog.remove_mount("a").unwrap());
    assert!(!catalog.remove_mount("a").unwrap());
    catalog.put_setting("bandwidth", b"28.5").unwrap();
    drop(catalog);
    let catalog = Catalog::open(&path).unwrap();
    assert_eq!(catalog.mounts().unwrap(), [replaced, mount("ä")]);
    assert_eq!(catalog.get_setting("bandwidth").unwrap().as_deref(), Some(&b"28.5"[..]));
    assert_eq!(catalog.get_setting("other").unwrap(), None);
}

#[test]
fn names_and_settings_beyond_their_bounds_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(directory.path()).unwrap();
    let refused = |result: Result<(), CatalogError>| {
        assert!(matches!(result, Err(CatalogError::TooLarge { .. })), "{result:?}");
    };
    refused(catalog.put_mount(&mount("")));
    refused(catalog.put_mount(&mount(&"x".repeat(256))));
    let long_path = MountRecord { path: "x".repeat(SETTING_BYTES_MAX).into(), ..mount("a") };
    refused(catalog.put_mount(&long_path));
    refused(catalog.put_setting("", b""));
    refused(catalog.put_setting("key", &vec![0; SETTING_BYTES_MAX + 1]));
    catalog.put_setting("key", &vec![0; SETTING_BYTES_MAX]).unwrap();
    assert_eq!(names(&catalog).len(), 0);
}

/// Opens as soon as threads of the one that was dropped have let go of its lock.
fn unlocked<T, E: std::fmt::Debug>(open: impl Fn() -> Result<T, E>) -> T {
    for _ in 0..500 {
        if let Ok(opened) = open() {
            return opened;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    open().unwrap()
}

#[test]
fn damaged_record_is_reported_by_name_and_the_others_stay_readable() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(directory.path()).unwrap();
    catalog.put_mount(&mount("good")).unwrap();
    catalog.put_mount(&mount("hurt")).unwrap();
    catalog.put_setting("hurt", b"content").unwrap();
    drop(catalog);
    let raw = unlocked(|| sled::open(directory.path()));
    for tree in ["mounts", "settings"] {
        let tree = raw.open_tree(tree).unwrap();
        let mut value = tree.get("hurt").unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        tree.insert("hurt", value).unwrap();
    }
    raw.flush().unwrap();
    drop(raw);
    let catalog = unlocked(|| Catalog::open(directory.path()));
    let error = catalog.mounts().unwrap_err();
    assert!(error.to_string().contains("\"hurt\""), "{error}");
    let (records, problems) = catalog.mounts_and_problems().unwrap();
    assert_eq!((records, problems.len()), (vec![mount("good")], 1));
    assert!(matches!(catalog.get_setting("hurt"), Err(CatalogError::DamagedRecord { .. })));
    assert!(catalog.remove_mount("hurt").unwrap());
    assert_eq!(names(&catalog), ["good"]);
}

#[test]
fn damaged_store_is_an_error_or_intact_records_and_never_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(directory.path()).unwrap();
    for number in 0..50 {
        catalog.put_mount(&mount(&format!("{number:02}"))).unwrap();
    }
    drop(catalog);
    let intact = std::fs::read(directory.path().join("db")).unwrap();
    for eighth in 0..8 {
        let mut damaged = intact.clone();
        let start = intact.len() / 8 * eighth;
        damaged[start..start + 100].fill(0xa5);
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        std::fs::write(copy.path().join("db"), damaged).unwrap();
        if let Ok(catalog) = Catalog::open(copy.path()) {
            let (records, _) = catalog.mounts_and_problems().unwrap();
            for record in records {
                assert_eq!(record, mount(&record.name));
            }
        }
    }
}

/// Runs one ignored test of this binary as a process of its own.
fn child(name: &str, directory: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", name])
        .env(CHILD_DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The numbers that a child acknowledged so far.
fn acknowledged(line: &str) -> Option<usize> {
    line.rsplit_once("acknowledged ")?.1.trim().parse().ok()
}

#[test]
fn killed_process_loses_no_acknowledged_mount_and_its_lock() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = None;
    for round in 1..=3 {
        let mut child = child("child_mounts_until_it_is_killed", directory.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while last.is_none_or(|last| last < round * 20) {
            last = acknowledged(&lines.next().unwrap().unwrap()).or(last);
        }
        let locked = Catalog::open(directory.path()).unwrap_err();
        assert!(matches!(locked, CatalogError::Locked { .. }), "{locked}");
        child.kill().unwrap();
        child.wait().unwrap();
        last = lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)).last().or(last);
        let names = names(&Catalog::open(directory.path()).unwrap());
        let expected: Vec<String> = (0..names.len()).map(|number| format!("{number:06}")).collect();
        assert_eq!(names, expected);
        assert!(names.len() > last.unwrap(), "{} mounts, acknowledged up to {last:?}", names.len());
    }
}

#[test]
#[ignore = "runs until killed; run by killed_process_loses_no_acknowledged_mount_and_its_lock"]
fn child_mounts_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let catalog = Catalog::open(Path::new(&directory)).unwrap();
    let start = catalog.mounts().unwrap().len();
    for number in start..100_000 {
        catalog.put_mount(&mount(&format!("{number:06}"))).unwrap();
        println!("acknowledged {number}");
    }
}
