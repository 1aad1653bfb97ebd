//! What nothing real brings about: a panic in the middle of a pass.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larql_compute::model::{DecodeError, FfnContext, Hook, Role};
use larql_storage::file::DiskFiles;
use tokio::sync::mpsc;

use super::*;
use crate::bundled;
use crate::generation::{Prompt, Request};

/// How long anything may take that has no claim about time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the next pass panics.
static ARMED: AtomicBool = AtomicBool::new(false);

/// The dense network, which panics once it is told to.
struct Fragile;

impl Ffn for Fragile {
    fn forward(
        &self,
        layer: usize,
        input: &[f32],
        positions: usize,
        out: &mut [f32],
        context: &FfnContext<'_>,
        observe: Option<&mut dyn Hook>,
    ) -> Result<u64, DecodeError> {
        assert!(layer < 2 || !ARMED.swap(false, Ordering::AcqRel), "told to");
        DenseFfn.forward(layer, input, positions, out, context, observe)
    }

    fn reads(&self, role: Role) -> bool {
        DenseFfn.reads(role)
    }
}

/// The bundled model with runners whose passes can be made to panic.
struct House {
    batching: Batching,
    model: Arc<Model>,
    _directory: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = bundled::unpack("atlas", directory.path()).unwrap();
        let model = Model::open(&DiskFiles::shared(), &path, &Cancel::new()).unwrap();
        let limits = Limits {
            kv_type: KvType::F16,
            kv_cache_bytes: 16 << 20,
            sequences_max: 4,
            queue_max: 8,
            prefill_tokens_max: 64,
        };
        let batching = Batching::with_network(limits, Arc::new(Pool::new(1)), || Box::new(Fragile));
        Self { batching, model: Arc::new(model), _directory: directory }
    }

    /// Begins a generation whose client may be so many events behind.
    fn begin(&self, prompt: &str, behind: usize) -> mpsc::Receiver<Result<Event, Failure>> {
        let prompt = Prompt::Text(prompt.to_owned());
        let request = Request { tokens_max: 8, ..Request::new(prompt) };
        let (events, receiver) = mpsc::channel(behind);
        let (model, principal) = (&self.model, &Principal::Daemon);
        let held = Box::new(());
        self.batching.generate(model, principal, &request, &Cancel::new(), events, held).unwrap();
        receiver
    }

    /// Waits until the runner's state is such.
    fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let began = Instant::now();
        loop {
            let states = self.batching.states();
            if states.iter().any(&holds) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "this did not come: {what}; {states:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The tokens of a generation, or why it failed.
fn tokens(mut events: mpsc::Receiver<Result<Event, Failure>>) -> Result<Vec<u32>, Failure> {
    let mut ids = Vec::new();
    while let Some(event) = events.blocking_recv() {
        match event? {
            Event::Token(token) => ids.extend(token.id),
            Event::Done { .. } => return Ok(ids),
        }
    }
    panic!("a generation ended without an end");
}

#[test]
fn a_panic_in_a_pass_ends_those_who_took_part_and_nobody_else() {
    let house = House::new();
    let (france, river) = ("The capital of France is", "The longest river of Egypt is");
    let expected =
        [tokens(house.begin(france, 64)).unwrap(), tokens(house.begin(river, 64)).unwrap()];
    // One whose client does not read takes part in no pass.
    let paused = house.begin(france, 1);
    house.until("a client is behind", |state| state.paused == 1);
    ARMED.store(true, Ordering::Release);
    let failure = tokens(house.begin(river, 64)).unwrap_err();
    assert_eq!(failure.code, code::INTERNAL, "{failure:?}");
    assert!(!ARMED.load(Ordering::Acquire) && !failure.hint.is_empty(), "{failure:?}");
    assert_eq!(tokens(paused).unwrap(), expected[0], "it went on as if nothing had happened");
    assert_eq!(tokens(house.begin(river, 64)).unwrap(), expected[1], "the next one is served");
    house.until("everybody is gone", |state| state.running == 0);
    house.until("pages return", |state| state.pages_used == state.pages_reusable);
}
