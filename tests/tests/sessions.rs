//! Sessions as clients meet them: many at once, cancelled, abandoned, slow, refused, drained.
//!
//! Claims about time are measured from the act to its effect. The machine that runs the tests may be
//! busy, so such a claim must hold in one of a few tries.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larql_client::{
    Answer, Client, ConnectError, ConnectOptions, Event, ExecuteOptions, GenerateEvent,
    GenerateRequest, StatementError, Target, Value,
};
use larql_proto::v1::{self as wire, client_frame, server_frame};
use larql_tests::daemon::Daemon;
use larql_tests::random_checkpoint::{self, Random, Size};
use larql_tests::{atlas_checkpoint, program};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// What a stopped statement may still take.
const STOPPED_WITHIN: Duration = Duration::from_millis(100);
/// How often a claim about time is tried.
const TRIES: usize = 5;
/// How long anything may take that has no claim about time.
const PATIENCE: Duration = Duration::from_secs(60);

fn here() -> ExecuteOptions {
    ExecuteOptions::here()
}

/// A daemon with the slow random model in use as a checkpoint at the returned path.
fn start_with_slow_model(arguments: &[&str]) -> (Daemon, String) {
    let daemon = Daemon::start_with(arguments);
    let path = daemon.data_dir().join("slow");
    random_checkpoint::write(&path, Size::SLOW, 7);
    (daemon, path.display().to_string())
}

/// An INFER that takes seconds.
fn slow_infer(model: &str) -> String {
    format!("USE MODEL \"{model}\"; INFER \"{}\"", random_checkpoint::prompt(4000))
}

/// Waits until `holds`, or fails.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "this did not come: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the daemon computes.
async fn until_busy(daemon: &Daemon) {
    until("the daemon computes", async || {
        let before = daemon.processor_time();
        sleep(Duration::from_millis(100)).await;
        daemon.processor_time() - before >= Duration::from_millis(50)
    })
    .await;
}

/// Whether the daemon, 100 ms after this call, computes no more.
async fn is_idle_soon(daemon: &Daemon) -> bool {
    sleep(STOPPED_WITHIN).await;
    let before = daemon.processor_time();
    sleep(Duration::from_millis(300)).await;
    // Two ticks of the clock in which processor time is counted.
    daemon.processor_time() - before <= Duration::from_millis(20)
}

/// Reads events until the script is over.
async fn finish(
    statements: &mut larql_client::Statements<'_>,
) -> (Vec<Event>, Option<StatementError>) {
    let (mut events, mut failure) = (Vec::new(), None);
    while let Some(event) = timeout(PATIENCE, statements.next()).await.expect("an event") {
        match event {
            Event::Error(error) => failure = Some(error),
            event => events.push(event),
        }
    }
    (events, failure)
}

// --- a session frame by frame ------------------------------------------------------------------

/// A session whose frames the test sends and reads itself.
struct Frames {
    sender: Option<mpsc::UnboundedSender<wire::ClientFrame>>,
    frames: tonic::Streaming<wire::ServerFrame>,
    unread: Vec<wire::ServerFrame>,
}

impl Frames {
    async fn open(daemon: &Daemon) -> Self {
        let endpoint = format!("unix://{}", daemon.socket().display());
        let channel =
            tonic::transport::Endpoint::try_from(endpoint).expect("an address").connect().await;
        let mut client = wire::session_client::SessionClient::new(channel.expect("a connection"));
        let (sender, receiver) = mpsc::unbounded_channel();
        let hello = wire::Hello { version_min: 1, version_max: 1, client: "test".to_owned() };
        sender
            .send(wire::ClientFrame { frame: Some(client_frame::Frame::Hello(hello)) })
            .expect("room");
        let outgoing = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let frames = client.open(outgoing).await.expect("a session").into_inner();
        let mut session = Self { sender: Some(sender), frames, unread: Vec::new() };
        let welcome = session.next().await.expect("a frame");
        assert!(matches!(welcome.frame, Some(server_frame::Frame::Welcome(_))), "{welcome:?}");
        session
    }

    fn send(&self, frame: client_frame::Frame) {
        let sender = self.sender.as_ref().expect("the sending side is open");
        sender.send(wire::ClientFrame { frame: Some(frame) }).expect("the session is open");
    }

    fn execute(&self, id: u64, script: &str) {
        let execute = wire::Execute { id, script: script.to_owned(), ..wire::Execute::default() };
        self.send(client_frame::Frame::Execute(execute));
    }

    fn cancel(&self, id: u64) {
        self.send(client_frame::Frame::Cancel(wire::Cancel { id }));
    }

    async fn next(&mut self) -> Option<wire::ServerFrame> {
        let frame = timeout(PATIENCE, self.frames.message()).await.expect("a frame in time");
        frame.expect("a frame")
    }

    /// Reads until the script with that id is over: its errors, and its number of rows. What belongs
    /// to other scripts stays for them.
    async fn finish(&mut self, id: u64) -> (Vec<wire::Error>, usize) {
        let (mut errors, mut rows, mut at) = (Vec::new(), 0, 0);
        loop {
            while at == self.unread.len() {
                let frame = self.next().await;
                let frame = frame.unwrap_or_else(|| panic!("the session ended before script {id}"));
                self.unread.push(frame);
            }
            if self.unread[at].id != id {
                at += 1;
                continue;
            }
            match self.unread.remove(at).frame {
                Some(server_frame::Frame::Error(error)) => errors.push(error),
                Some(server_frame::Frame::Batch(batch)) => rows += batch.rows.len(),
                Some(server_frame::Frame::Finished(_)) => return (errors, rows),
                _ => {}
            }
        }
    }
}

// --- load --------------------------------------------------------------------------------------

/// Statements of every kind that reads, with different operands.
fn mixed_reads() -> Vec<String> {
    let facts = std::fs::read_to_string(atlas_checkpoint().join("facts.tsv")).expect("facts.tsv");
    let subjects: Vec<&str> =
        facts.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    let mut reads = vec!["STATS".to_owned(), "SHOW MODELS".to_owned(), "SHOW MOUNTS".to_owned()];
    for subject in subjects.iter().step_by(subjects.len() / 6) {
        reads.push(format!("DESCRIBE \"{subject}\" ALL LAYERS"));
        reads.push(format!("DESCRIBE \"{subject}\" STREAM"));
        reads.push(format!("WALK \"The capital of {subject}\" TOP 4"));
        reads.push(format!("INFER \"The capital of {subject} is\" TOP 3"));
        reads.push(format!(
            "SELECT * FROM EDGES WHERE entity = \"{subject}\" ORDER BY gate_score DESC LIMIT 10"
        ));
        reads.push(format!(
            "SELECT feature, target FROM EDGES NEAREST TO \"{subject}\" AT LAYER 4 LIMIT 5"
        ));
        reads.push(format!("EXPLAIN INFER \"{subject} is in\" TOP 2"));
    }
    for layer in 0..6 {
        reads.push(format!("SHOW LAYERS {layer}-{layer}"));
        reads.push(format!("SHOW FEATURES {layer} LIMIT 20"));
        reads.push(format!("SELECT target, logit FROM FEATURES WHERE layer = {layer} AND target LIKE \"a%\" LIMIT 9"));
        reads.push(format!("EXPLAIN SELECT * FROM FEATURES WHERE layer = {layer} AND feature = 9"));
    }
    reads
}

/// What must not depend on who else asks. Inferences share passes over the weights, so what each of
/// them read does.
fn comparable(answer: &Answer) -> impl PartialEq + std::fmt::Debug + use<> {
    let Answer { tag, columns, rows, summary, .. } = answer.clone();
    let bytes_touched = (tag != "INFER").then_some(summary.bytes_touched);
    (tag, columns, rows, summary.rows, bytes_touched, summary.base_hash, summary.mount)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_at_once_answer_as_one_does_and_memory_stays_flat() {
    const SESSIONS: u64 = 200;
    /// What resident anonymous memory may differ by between two quarters of the run.
    const DRIFT_BYTES: u64 = 16 << 20;
    let seconds =
        std::env::var("LARQL_LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let duration = Duration::from_secs(seconds);
    let daemon = Arc::new(Daemon::start());
    daemon.extract_atlas("WITH INFERENCE").await;
    let reads = Arc::new(mixed_reads());
    let mut serial = Vec::new();
    let mut client = daemon.client().await;
    client.query("USE \"atlas\"; SET result_cache = off", here()).await.expect("USE");
    for read in reads.iter() {
        let answer = client
            .query(read.as_str(), here())
            .await
            .unwrap_or_else(|error| panic!("{read}: {error}"));
        serial.push(comparable(&answer[0]));
    }
    let serial = Arc::new(serial);
    let answered = Arc::new(AtomicU64::new(0));
    let together = Arc::new(tokio::sync::Barrier::new(SESSIONS as usize + 1));
    let mut sessions = tokio::task::JoinSet::new();
    for seed in 1..=SESSIONS {
        let (daemon, reads, serial) = (daemon.clone(), reads.clone(), serial.clone());
        let (answered, together) = (answered.clone(), together.clone());
        sessions.spawn(async move {
            let mut random = Random(seed);
            let mut client = daemon.client().await;
            client.query("USE \"atlas\"; SET result_cache = off", here()).await.expect("USE");
            let mut compare = async |at: usize| {
                let answer = client.query(reads[at].as_str(), here()).await;
                let answer =
                    answer.unwrap_or_else(|error| panic!("seed {seed}: {}: {error}", reads[at]));
                assert_eq!(comparable(&answer[0]), serial[at], "seed {seed}: {}", reads[at]);
            };
            together.wait().await;
            let began = Instant::now();
            while began.elapsed() < duration {
                compare(random.below(reads.len())).await;
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    together.wait().await;
    let began = Instant::now();
    let mut samples = Vec::new();
    while began.elapsed() < duration {
        samples.push(daemon.anonymous_bytes());
        sleep(duration / 200).await;
    }
    while let Some(session) = sessions.join_next().await {
        session.expect("a session without error");
    }
    let answered = answered.load(Ordering::Relaxed);
    let elapsed = began.elapsed().as_secs_f64();
    let median = |samples: &[u64]| {
        let mut samples = samples.to_vec();
        samples.sort_unstable();
        samples[samples.len() / 2]
    };
    let quarter = samples.len() / 4;
    let (early, late) = (median(&samples[quarter..2 * quarter]), median(&samples[3 * quarter..]));
    println!(
        "{answered} statements in {elapsed:.1} s: {:.0} a second; anonymous memory {} MiB, then {} MiB",
        answered as f64 / elapsed,
        early >> 20,
        late >> 20
    );
    assert!(answered >= SESSIONS, "only {answered} statements");
    assert!(late <= early + DRIFT_BYTES, "memory grows: {samples:?}");
}

// --- stopping ----------------------------------------------------------------------------------

/// Runs `script` until it computes, and is in the named stage if it has stages; cancels it, and
/// returns how long it took to end.
async fn cancel_once(
    daemon: &Daemon,
    client: &mut Client,
    script: &str,
    stage: Option<&str>,
) -> Duration {
    let mut statements = client.execute(script, here());
    let ready = async {
        match stage {
            // The event of the stage, below, ends the waiting.
            Some(_) => std::future::pending().await,
            None => until_busy(daemon).await,
        }
    };
    tokio::pin!(ready);
    loop {
        tokio::select! {
            () = &mut ready => break,
            event = statements.next() => match event {
                Some(Event::Progress(progress)) if Some(progress.stage.as_str()) == stage => break,
                None | Some(Event::Error(_) | Event::Finished { .. }) => {
                    panic!("{stage:?}: it ended by itself: {event:?}")
                }
                _ => {}
            },
        }
    }
    if stage.is_some() {
        sleep(Duration::from_millis(10)).await;
    }
    let act = Instant::now();
    statements.cancel();
    let (_, failure) = finish(&mut statements).await;
    let took = act.elapsed();
    let failure = failure.expect("a cancelled statement fails");
    assert_eq!(failure.code, StatementError::CANCELLED, "{failure}");
    took
}

#[tokio::test]
async fn cancel_stops_every_long_statement_within_100_ms() {
    let (daemon, model) = start_with_slow_model(&[]);
    let prompt = random_checkpoint::prompt(4000);
    let into = daemon.data_dir().join("slow.vindex").display().to_string();
    let extract = format!("EXTRACT MODEL \"{model}\" INTO \"{into}\" OVERWRITE");
    for (statement, stage, long) in [
        ("INFER", None, format!("INFER \"{prompt}\"")),
        ("INFER by walk", None, format!("SET ffn = walk; SET walk_k = 64; INFER \"{prompt}\"")),
        ("INFER COMPARE", None, format!("RESET ffn; INFER \"{prompt}\" COMPARE")),
        ("EXPLAIN ANALYZE", None, format!("EXPLAIN ANALYZE INFER \"{prompt}\"")),
        ("EXTRACT while it reads", Some("reading"), extract.clone()),
        ("EXTRACT of weights", Some("weights"), extract.clone()),
        ("EXTRACT of features", Some("features"), extract.clone()),
    ] {
        let script = format!("USE MODEL \"{model}\"; {long}");
        let mut client = daemon.client().await;
        let mut tries = Vec::new();
        for _ in 0..TRIES {
            tries.push(cancel_once(&daemon, &mut client, &script, stage).await);
            if tries[tries.len() - 1] <= STOPPED_WITHIN {
                break;
            }
        }
        println!("{statement}: {tries:?}");
        assert!(tries.iter().any(|took| *took <= STOPPED_WITHIN), "{statement}: {tries:?}");
        let answer = client.query("SHOW MOUNTS", here()).await;
        answer.unwrap_or_else(|error| {
            panic!("after a cancelled {statement} the session is usable: {error}")
        });
    }
}

#[tokio::test]
async fn a_dropped_connection_stops_its_computation_within_100_ms() {
    let (daemon, model) = start_with_slow_model(&[]);
    let mut idle = false;
    for _ in 0..TRIES {
        // A driver would send Cancel before it goes; these frames just end.
        let session = Frames::open(&daemon).await;
        session.execute(1, &slow_infer(&model));
        until_busy(&daemon).await;
        drop(session);
        idle = is_idle_soon(&daemon).await;
        if idle {
            break;
        }
    }
    assert!(idle, "the daemon goes on computing for a client that is gone");
    let client = daemon.client().await;
    until("the abandoned sessions end", async || {
        client.status().await.expect("status").sessions == 1
    })
    .await;
}

#[tokio::test]
async fn a_killed_client_program_stops_its_computation_within_100_ms() {
    let (daemon, model) = start_with_slow_model(&[]);
    let mut idle = false;
    for _ in 0..TRIES {
        let mut larql = Command::new(program("larql"))
            .args(["--host", &format!("unix://{}", daemon.socket().display()), "--no-start", "-c"])
            .arg(slow_infer(&model))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("larql starts");
        until_busy(&daemon).await;
        assert!(larql.try_wait().expect("our child").is_none(), "larql ended by itself");
        larql.kill().expect("a kill");
        idle = is_idle_soon(&daemon).await;
        larql.wait().expect("our child");
        if idle {
            break;
        }
    }
    assert!(idle, "the daemon goes on computing for a client that was killed");
}

#[tokio::test]
async fn a_generation_stops_within_100_ms_when_its_stream_is_dropped() {
    let (daemon, model) = start_with_slow_model(&[]);
    let client = daemon.client().await;
    let mut idle = false;
    for prompt in [random_checkpoint::prompt(2), random_checkpoint::prompt(4000)] {
        for _ in 0..TRIES {
            // A long answer after a short prompt is decoding, the other way round it is prefill.
            let request = GenerateRequest {
                model: model.clone(),
                prompt: prompt.clone(),
                tokens_max: 4000,
                ..GenerateRequest::default()
            };
            let generation = client.generate(request).await.expect("a generation");
            until_busy(&daemon).await;
            drop(generation);
            idle = is_idle_soon(&daemon).await;
            if idle {
                break;
            }
        }
        assert!(idle, "the daemon goes on generating for nobody");
    }
}

#[tokio::test]
async fn a_deadline_ends_a_statement_with_57014_in_time() {
    let (daemon, model) = start_with_slow_model(&[]);
    let mut client = daemon.client().await;
    let deadline = Duration::from_millis(500);
    let mut tries = Vec::new();
    for _ in 0..TRIES {
        let options = ExecuteOptions { deadline: Some(deadline), ..here() };
        let began = Instant::now();
        let error = client.query(slow_infer(&model), options).await.expect_err("no answer in time");
        tries.push(began.elapsed());
        assert_eq!(error.code, StatementError::CANCELLED, "{error}");
        assert!(error.message.contains("deadline"), "{error}");
        if tries[tries.len() - 1] <= deadline + STOPPED_WITHIN {
            break;
        }
    }
    assert!(tries.iter().all(|took| *took >= deadline), "{tries:?}");
    assert!(tries.iter().any(|took| *took <= deadline + STOPPED_WITHIN), "{tries:?}");
    // A deadline that is not met is none.
    let options = ExecuteOptions { deadline: Some(PATIENCE), ..here() };
    client.query("SHOW MOUNTS", options).await.expect("an answer in time");
}

// --- readers, queues, ends of a session ----------------------------------------------------------

#[tokio::test]
async fn a_client_that_does_not_read_costs_no_memory_and_disturbs_nobody() {
    const SCANS: usize = 60;
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut slow = daemon.client().await;
    slow.query("USE \"atlas\"; SELECT * FROM EDGES LIMIT 10;", here()).await.expect("rows");
    let before = daemon.anonymous_bytes();
    let mut statements = slow.execute("SELECT * FROM EDGES;".repeat(SCANS), here());
    statements.next().await.expect("the first event");
    // The script stands still once everything between it and the reader is full.
    until("the script waits for its reader", async || is_idle_soon(&daemon).await).await;
    let grown = daemon.anonymous_bytes().saturating_sub(before);
    let mut other = daemon.client().await;
    for _ in 0..20 {
        let began = Instant::now();
        other
            .query("USE \"atlas\"; DESCRIBE \"France\"; WALK \"France\"", here())
            .await
            .expect("an answer");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "another session waits: {:?}",
            began.elapsed()
        );
    }
    // Nothing was lost: the reader comes back and gets every row.
    let (events, failure) = finish(&mut statements).await;
    assert_eq!(failure, None);
    let (mut rows, mut bytes) = (0, 0);
    for event in &events {
        if let Event::Rows(batch) = event {
            rows += batch.len();
            bytes += batch.len() * 64;
        }
    }
    assert_eq!(rows, SCANS * 6144);
    let most = 6 << 20;
    assert!(grown < most, "{} KiB for a client that reads nothing", grown >> 10);
    assert!(bytes > 3 * most as usize, "the answer is too small for the test to say anything");
}

#[tokio::test]
async fn a_session_queues_64_scripts_and_refuses_the_next_one() {
    let (daemon, model) = start_with_slow_model(&[]);
    let mut session = Frames::open(&daemon).await;
    session.execute(1, &slow_infer(&model));
    for id in 2..=66 {
        session.execute(id, "SHOW MOUNTS");
    }
    let (errors, _) = session.finish(66).await;
    assert_eq!(errors[0].code, "53400", "{errors:?}");
    assert!(!errors[0].hint.is_empty());
    session.cancel(1);
    let (errors, _) = session.finish(1).await;
    assert_eq!(errors[0].code, "57014");
    for id in 2..=65 {
        let (errors, _) = session.finish(id).await;
        assert!(errors.is_empty(), "script {id}: {errors:?}");
    }
}

#[tokio::test]
async fn cancel_of_a_queued_script_answers_it_and_leaves_the_others() {
    let (daemon, model) = start_with_slow_model(&[]);
    let mut session = Frames::open(&daemon).await;
    session.execute(1, &slow_infer(&model));
    session.execute(2, "SHOW MODELS");
    session.execute(3, "SHOW ALL");
    session.cancel(99);
    session.cancel(2);
    let (errors, rows) = session.finish(2).await;
    assert_eq!((errors[0].code.as_str(), rows), ("57014", 0));
    session.cancel(1);
    let (errors, _) = session.finish(1).await;
    assert_eq!(errors[0].code, "57014");
    let (errors, rows) = session.finish(3).await;
    assert!(errors.is_empty() && rows > 0, "{errors:?}");
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_still_gets_every_answer() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut session = Frames::open(&daemon).await;
    session.execute(1, "USE \"atlas\"");
    for id in 2..=9 {
        session.execute(id, "SELECT * FROM FEATURES");
    }
    session.sender = None;
    for id in 1..=9 {
        let (errors, rows) = session.finish(id).await;
        assert_eq!(errors, [], "script {id}");
        assert!(id == 1 || rows == 6144, "script {id}: {rows} rows");
    }
    assert_eq!(session.next().await, None, "the daemon ends the stream");
}

#[tokio::test]
async fn more_sessions_than_allowed_are_refused_until_one_leaves() {
    let daemon = Daemon::start_with(&["--sessions-max", "4"]);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(daemon.client().await);
    }
    let target = Target::Unix(daemon.socket());
    let connect = || Client::connect(&target, ConnectOptions::default());
    let refused = connect().await.err().expect("a fifth session is refused");
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused:?}");
    assert_eq!(refused.code(), "53400");
    assert!(refused.to_string().contains("too many sessions"), "{refused}");
    clients.pop();
    until("a place is free", async || connect().await.is_ok()).await;
    for client in &mut clients {
        client.query("SHOW MOUNTS", here()).await.expect("the others go on");
    }
}

// --- the end of the daemon -----------------------------------------------------------------------

#[tokio::test]
async fn sigterm_lets_the_running_statement_answer_and_refuses_new_sessions() {
    let (mut daemon, model) = start_with_slow_model(&["--drain-seconds", "120"]);
    let mut session = Frames::open(&daemon).await;
    session.execute(1, &format!("USE MODEL \"{model}\""));
    assert_eq!(session.finish(1).await.0, []);
    session.execute(2, &format!("INFER \"{}\"", random_checkpoint::prompt(600)));
    session.execute(3, "SHOW MOUNTS");
    until_busy(&daemon).await;
    daemon.signal(libc::SIGTERM);
    let (errors, _) = session.finish(3).await;
    assert_eq!(errors[0].code, "57P01", "a queued script is told: {errors:?}");
    let began = Instant::now();
    let refused = Client::connect(&Target::Unix(daemon.socket()), ConnectOptions::default()).await;
    assert!(refused.is_err(), "a session opened while the daemon drains");
    assert!(began.elapsed() < Duration::from_secs(5), "the refusal took {:?}", began.elapsed());
    assert!(daemon.is_running(), "the daemon left its statement");
    let (errors, rows) = session.finish(2).await;
    assert_eq!((errors, rows), (Vec::new(), 5), "the five rows of INFER");
    let status = daemon.wait();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
}

#[tokio::test]
async fn sigterm_ends_a_daemon_whose_sessions_are_idle_at_once() {
    let mut daemon = Daemon::start_with(&["--drain-seconds", "120"]);
    let _session = daemon.client().await;
    ends_at_once(&mut daemon);
}

#[tokio::test]
async fn sigterm_ends_a_daemon_at_once_though_a_connection_says_nothing() {
    let mut daemon = Daemon::start_with(&["--drain-seconds", "120"]);
    let _silent = std::os::unix::net::UnixStream::connect(daemon.socket()).expect("a connection");
    ends_at_once(&mut daemon);
}

fn ends_at_once(daemon: &mut Daemon) {
    let began = Instant::now();
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert!(!daemon.socket().exists(), "the socket is left behind");
}

#[tokio::test]
async fn a_statement_that_outlasts_the_drain_does_not_keep_the_daemon() {
    let (mut daemon, model) = start_with_slow_model(&["--drain-seconds", "1"]);
    let mut client = daemon.client().await;
    let script = format!("USE MODEL \"{model}\"; ")
        + &format!("INFER \"{}\";", random_checkpoint::prompt(8000)).repeat(20);
    let mut statements = client.execute(script, here());
    statements.next().await.expect("an event");
    until_busy(&daemon).await;
    let began = Instant::now();
    daemon.signal(libc::SIGTERM);
    let (_, failure) = finish(&mut statements).await;
    assert!(failure.is_some(), "the script cannot have been done");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
}

// --- what a session remembers --------------------------------------------------------------------

#[tokio::test]
async fn sessions_have_their_own_mount_and_settings() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let other = daemon.data_dir().join("tiny");
    random_checkpoint::write(&other, Size::FEW_FEATURES, 3);
    daemon.extract(&other, &daemon.data_dir().join("tiny.vindex"), "").await;
    let (mut one, mut two) = (daemon.client().await, daemon.client().await);
    one.query("USE \"atlas\"; SET describe_z = 2.5", here()).await.expect("USE and SET");
    two.query("USE \"tiny\"; SET walk_k = 7", here()).await.expect("USE and SET");
    let script = "SHOW describe_z; SHOW walk_k; STATS";
    let settings = |answers: &[Answer]| {
        let value = |answer: &Answer| answer.column("value").expect("a value")[0].clone();
        (value(&answers[0]), value(&answers[1]), answers[2].summary.mount.clone())
    };
    let one = settings(&one.query(script, here()).await.expect("answers"));
    let two = settings(&two.query(script, here()).await.expect("answers"));
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(one, (text("2.5"), text("all"), "atlas".to_owned()));
    assert_eq!(two, (text("4"), text("7"), "tiny".to_owned()));
    let mut fresh = daemon.client().await;
    let error = fresh.query("STATS", here()).await.expect_err("nothing is in use in a new session");
    assert_eq!(error.code, "3F000");
}

#[tokio::test]
async fn a_script_stops_at_its_first_failure_unless_told_to_continue() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut client = daemon.client().await;
    let script = "USE \"atlas\"; SELECT nothing FROM EDGES; SHOW MOUNTS";
    let mut statements = client.execute(script, here());
    let (events, failure) = finish(&mut statements).await;
    assert_eq!(failure.expect("a failure").statement, 1);
    assert_eq!(events.last(), Some(&Event::Finished { statements: 2, failed: true }));
    drop(statements);
    client.query("SET on_error = continue", here()).await.expect("SET");
    let mut statements = client.execute(script, here());
    let (events, failure) = finish(&mut statements).await;
    assert_eq!(failure.expect("a failure").statement, 1);
    assert_eq!(events.last(), Some(&Event::Finished { statements: 3, failed: true }));
    let tags: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Schema { tag, .. } => Some(tag.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(tags, ["USE", "SHOW MOUNTS"]);
}

#[tokio::test]
async fn unmount_lets_a_running_statement_finish_and_then_the_name_is_gone() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut reader = daemon.client().await;
    reader.query("USE \"atlas\"", here()).await.expect("USE");
    let mut statements = reader.execute("SELECT * FROM EDGES;".repeat(20), here());
    statements.next().await.expect("the first event");
    let mut admin = daemon.client().await;
    admin.query("UNMOUNT atlas", here()).await.expect("UNMOUNT");
    let (events, failure) = finish(&mut statements).await;
    assert_eq!(failure, None, "the running script keeps what it began with");
    let rows: usize =
        events.iter().map(|event| if let Event::Rows(rows) = event { rows.len() } else { 0 }).sum();
    assert_eq!(rows, 20 * 6144);
    drop(statements);
    for session in [&mut admin, &mut reader] {
        let error = session.query("USE \"atlas\"", here()).await.expect_err("the name is gone");
        assert_eq!(error.code, "42704", "{error}");
        assert!(!error.hint.is_empty());
    }
    let error = admin.query("UNMOUNT atlas", here()).await.expect_err("the name is gone");
    assert_eq!(error.code, "42704", "{error}");
}

#[tokio::test]
async fn a_generation_streams_while_a_session_of_the_same_connection_works() {
    let (daemon, model) = start_with_slow_model(&[]);
    let mut client = daemon.client().await;
    let request = GenerateRequest {
        model: model.clone(),
        prompt: "Word5 Word6".to_owned(),
        tokens_max: 40,
        ..GenerateRequest::default()
    };
    let mut generation = client.generate(request).await.expect("a generation");
    let mut tokens = 0;
    while let Some(event) = generation.next().await.expect("an event") {
        if let GenerateEvent::Token { .. } = event {
            tokens += 1;
            client.query("SHOW MOUNTS", here()).await.expect("an answer meanwhile");
        }
    }
    assert!(tokens > 0);
}
