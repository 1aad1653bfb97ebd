//! Snapshot isolation through the daemon: sessions, branches and moments in random histories, against a model
//! of a few lines.
//!
//! `LARQL_HISTORIES` says how many histories, `LARQL_HISTORY_SEED` which is the first.

use std::collections::BTreeMap;
use std::path::Path;

use larql_client::{Client, ExecuteOptions};
use larql_tests::daemon::Daemon;

use super::{session, text};

const HISTORIES: u64 = 3;
const STEPS: usize = 40;
const ENTITIES: [&str; 3] = ["France", "Peru", "Japan"];
const TARGETS: [&str; 3] = ["Berlin", "Rome", "Madrid"];

/// What is known of an entity, and since when.
type Known = BTreeMap<usize, (usize, u64)>;

/// One branch: what it is after each of its changes.
#[derive(Debug, Clone, Default)]
struct Line {
    began: u64,
    moments: BTreeMap<u64, Known>,
}

impl Line {
    fn as_of(&self, lsn: u64) -> Known {
        self.moments.range(..=lsn).next_back().map(|(_, known)| known.clone()).unwrap_or_default()
    }

    fn now(&self) -> Known {
        self.as_of(u64::MAX)
    }
}

struct Open {
    began: u64,
    known: Known,
    writes: Vec<(usize, usize)>,
}

struct Session {
    client: Client,
    branch: String,
    open: Option<Open>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % count
    }
}

/// Runs a statement; gives the LSN that its summary tells, or the code of its failure.
async fn run(client: &mut Client, statement: &str) -> Result<u64, String> {
    match client.query(statement, ExecuteOptions::default()).await {
        Ok(answers) => Ok(answers.last().expect("an answer").summary.lsn),
        Err(error) => Err(error.code),
    }
}

/// What is answered for every entity.
async fn answers(client: &mut Client, moment: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entity in ENTITIES {
        let statement = format!("INFER \"The capital of {entity} is\" TOP 1{moment}");
        let answers = client.query(&*statement, ExecuteOptions::default()).await;
        let answers = answers.unwrap_or_else(|error| panic!("{statement}: {error}"));
        found.push(text(&answers[0].rows[0][1]));
    }
    found
}

fn expected(known: &Known, base: &[String]) -> Vec<String> {
    let of = |at: usize| match known.get(&at) {
        Some((target, _)) => TARGETS[*target].to_owned(),
        None => base[at].clone(),
    };
    (0..ENTITIES.len()).map(of).collect()
}

fn insert(entity: usize, target: usize) -> String {
    let (entity, target) = (ENTITIES[entity], TARGETS[target]);
    format!(
        "INSERT INTO EDGES (entity, relation, target) VALUES (\"{entity}\", \"capital\", \"{target}\") \
         MODE KNN WITHOUT RECEIPT"
    )
}

/// One history. `prefix` keeps its branches apart from those of others.
async fn history(daemon: &Daemon, seed: u64) {
    let mut random = Random(seed);
    let root = format!("h{seed}");
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let client = session(daemon).await;
        sessions.push(Session { client, branch: root.clone(), open: None });
    }
    let base = answers(&mut sessions[0].client, " AS OF LSN 0").await;
    let made = format!("CREATE BRANCH {root} FROM main AS OF LSN 0");
    run(&mut sessions[0].client, &made).await.expect("a branch");
    let last = run(&mut sessions[0].client, "SHOW BRANCHES").await;
    let mut last = last.expect("branches").max(
        run(&mut sessions[0].client, &format!("USE CURRENT BRANCH {root}")).await.expect("its LSN"),
    );
    let began = last;
    for one in &mut sessions {
        run(&mut one.client, &format!("USE CURRENT BRANCH {root}")).await.expect("it is there");
    }
    let mut lines = BTreeMap::from([(root.clone(), Line { began, moments: BTreeMap::new() })]);
    for step in 0..STEPS {
        let who = random.below(sessions.len());
        let what = format!("seed {seed}, step {step}, session {who}");
        let one = &mut sessions[who];
        match random.below(12) {
            0 | 1 if one.open.is_none() => {
                run(&mut one.client, "BEGIN").await.expect("it begins");
                let known = lines[&one.branch].now();
                one.open = Some(Open { began: last, known, writes: Vec::new() });
            }
            2..=4 => {
                let (entity, target) = (random.below(ENTITIES.len()), random.below(TARGETS.len()));
                let outcome = run(&mut one.client, &insert(entity, target)).await;
                let lsn = outcome.unwrap_or_else(|code| panic!("{what}: {code}"));
                match &mut one.open {
                    Some(open) => {
                        open.known.insert(entity, (target, 0));
                        open.writes.push((entity, target));
                    }
                    None => {
                        last = lsn;
                        let line = lines.get_mut(&one.branch).expect("it is there");
                        let mut known = line.now();
                        known.insert(entity, (target, lsn));
                        line.moments.insert(lsn, known);
                    }
                }
            }
            5 | 6 => {
                let Some(open) = one.open.take() else { continue };
                let line = lines.get_mut(&one.branch).expect("it is there");
                let mut known = line.now();
                let lost = open
                    .writes
                    .iter()
                    .any(|(entity, _)| known.get(entity).is_some_and(|(_, lsn)| *lsn > open.began));
                match run(&mut one.client, "COMMIT").await {
                    Ok(lsn) => {
                        assert!(!lost, "{what}: two writers changed one fact");
                        if !open.writes.is_empty() {
                            last = lsn;
                            let told = open.writes.iter();
                            known.extend(told.map(|(entity, target)| (*entity, (*target, lsn))));
                            line.moments.insert(lsn, known);
                        }
                    }
                    Err(code) => assert_eq!((lost, &*code), (true, "40001"), "{what}"),
                }
            }
            7 if one.open.is_some() => {
                run(&mut one.client, "ROLLBACK").await.expect("it rolls back");
                one.open = None;
            }
            8 if one.open.is_none() => {
                let line = &lines[&one.branch];
                let lsn = line.began + random.below((last - line.began + 1) as usize) as u64;
                let found = answers(&mut one.client, &format!(" AS OF LSN {lsn}")).await;
                assert_eq!(found, expected(&line.as_of(lsn), &base), "{what}: as of {lsn}");
            }
            9 if one.open.is_none() && lines.len() < 4 => {
                let name = format!("{root}_{}", lines.len());
                let line = &lines[&one.branch];
                let at = line.began + random.below((last - line.began + 1) as usize) as u64;
                let made = format!("CREATE BRANCH {name} AS OF LSN {at}");
                run(&mut one.client, &made).await.unwrap_or_else(|code| panic!("{what}: {code}"));
                let using = format!("USE CURRENT BRANCH {name}");
                last = run(&mut one.client, &using).await.expect("it is there");
                let known = line.as_of(at);
                one.branch.clone_from(&name);
                lines.insert(name, Line { began: last, moments: BTreeMap::from([(last, known)]) });
            }
            10 if one.open.is_none() => {
                let names: Vec<&String> = lines.keys().collect();
                let name = names[random.below(names.len())].clone();
                run(&mut one.client, &format!("USE CURRENT BRANCH {name}")).await.expect("there");
                one.branch = name;
            }
            _ => {
                let known = match &one.open {
                    Some(open) => open.known.clone(),
                    None => lines[&one.branch].now(),
                };
                assert_eq!(answers(&mut one.client, "").await, expected(&known, &base), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn every_session_sees_its_snapshot_and_its_own_edits_and_the_first_to_commit_wins() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let home = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(home.path(), &[]);
    daemon.extract_atlas("WITH INFERENCE").await;
    // There is a log before histories ask for moments of it.
    let mut first = session(&daemon).await;
    run(&mut first, "CREATE BRANCH first").await.expect("a branch");
    let seed = number("LARQL_HISTORY_SEED", 1);
    for seed in seed..seed + number("LARQL_HISTORIES", HISTORIES) {
        history(&daemon, seed).await;
        daemon = restarted(daemon, home.path());
    }
}

/// What is committed outlives the daemon.
fn restarted(mut daemon: Daemon, home: &Path) -> Daemon {
    daemon.kill();
    Daemon::start_in(home, &[])
}
