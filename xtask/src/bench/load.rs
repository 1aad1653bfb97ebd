//! Who else works on this machine: a measurement counts only while nobody does.

use std::fmt::Write as _;
use std::time::Instant;

/// The most of the processors that others may take before a figure is doubted.
pub const OTHERS_MAX: f64 = 0.03;

/// The load averages of the last one, five and fifteen minutes.
pub fn average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Processor time so far, in ticks: of all programs, and of ours.
#[derive(Clone, Copy)]
struct Ticks {
    all: u64,
    ours: u64,
    stolen: u64,
}

/// Watches the processors from its beginning on.
pub struct Watch {
    daemon: u32,
    began: Instant,
    first: Ticks,
}

/// What a watch saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// The share of all processors' time that neither engine nor we took.
    pub others: f64,
    /// The share that the host took from this machine.
    pub stolen: f64,
}

impl Seen {
    /// The worse of two.
    pub fn worse(self, other: Self) -> Self {
        Self { others: self.others.max(other.others), stolen: self.stolen.max(other.stolen) }
    }

    /// In words, if it is worth any.
    pub fn warning(self) -> Option<String> {
        let mut text = String::new();
        for (share, who) in [(self.others, "other programs"), (self.stolen, "the host")] {
            if share > OTHERS_MAX {
                let _ = write!(text, "{who} took {:.0} % of the processors; ", 100.0 * share);
            }
        }
        (!text.is_empty()).then(|| text.trim_end_matches("; ").to_owned())
    }
}

impl Watch {
    /// Begins; the daemon and programs that we wait for are ours.
    pub fn new(daemon: u32) -> Self {
        Self { daemon, began: Instant::now(), first: ticks(daemon) }
    }

    /// What happened since.
    pub fn seen(&self) -> Seen {
        const TICKS_PER_SECOND: f64 = 100.0;
        let (now, first) = (ticks(self.daemon), self.first);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let total = self.began.elapsed().as_secs_f64() * processors as f64 * TICKS_PER_SECOND;
        let others = (now.all - first.all).saturating_sub(now.ours.saturating_sub(first.ours));
        let share = |ticks: u64| ticks as f64 / total.max(1.0);
        Seen { others: share(others), stolen: share(now.stolen - first.stolen) }
    }
}

fn ticks(daemon: u32) -> Ticks {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> =
        line.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect();
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    // user, nice, system, interrupts: all but idle, waiting and stolen.
    let all = at(0) + at(1) + at(2) + at(5) + at(6);
    let of = |path: &str, fields: std::ops::Range<usize>| -> u64 {
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        // The program's name, in parentheses, may hold spaces.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let numbers = rest.split_whitespace().skip(11).map(|number| number.parse().unwrap_or(0));
        numbers.skip(fields.start).take(fields.len()).sum()
    };
    // User and system time; of ourselves, also of the children that have ended.
    let ours = of("/proc/self/stat", 0..4) + of(&format!("/proc/{daemon}/stat"), 0..2);
    Ticks { all, ours, stolen: at(7) }
}
