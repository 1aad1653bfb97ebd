//! The page `docs/benchmarks/llama.md`: the table of pairs, and the targets beside what was found.

use std::fmt::Write as _;
use std::path::Path;

use super::{Alone, CLIENT_PROMPT, CLIENT_TOKENS, CLIENTS, Kind, Line, MEMORY_CONTEXT, Model};
use crate::daemon::machine;
use crate::statistics::{self, Interval};

/// What people write themselves stands below this line and is kept.
const NOTES: &str = "## Notes";

/// What the page says of the run as a whole.
pub(super) struct Head {
    pub(super) pairs: usize,
    pub(super) threads: u64,
    pub(super) minutes: f64,
    /// Load averages before and after.
    pub(super) load: (String, String),
    /// llama.cpp's version and what it says of itself.
    pub(super) opponent: String,
    pub(super) system_info: String,
    /// Measurements that failed, as sentences.
    pub(super) failures: Vec<String>,
}

/// The page; of the one that is there, `kept`, what people wrote stays.
pub(super) fn page(
    root: &Path,
    head: &Head,
    lines: &[Line],
    alone: &Alone,
    kept: &str,
) -> anyhow::Result<String> {
    let mut page = String::from("# Beside llama.cpp\n\n");
    writeln!(
        page,
        "{}; {} threads for both engines; command: `cargo xtask bench llama --record`, {} pairs, {:.0} minutes.\n\
         Load average (1, 5, 15 minutes): {} before, {} after. Opponent: {}, built Release and\n\
         native, with its default options: {}.\n",
        machine(root)?,
        head.threads,
        head.pairs,
        head.minutes,
        head.load.0,
        head.load.1,
        head.opponent,
        head.system_info.trim()
    )?;
    writeln!(
        page,
        "Both run the same Q4_K_M files of random weights, by turns (A B, B A, …). Rates are medians in tokens a second; the\n\
         ratio is that of the two in a pair, ours over llama.cpp's: its median, and the interval that holds the true median\n\
         with {:.0} % (order statistics). Ours goes through the daemon: `larql bench`. llama.cpp's are `llama-bench` and, for\n\
         {CLIENTS} generations at once, `llama-server` with {CLIENTS} slots, asked over HTTP ({CLIENT_PROMPT} tokens of prompt, {CLIENT_TOKENS} made, for each;\n\
         ours has no HTTP between). *Others* is the most that anybody else took of the processors during one pair.\n",
        statistics::confidence(head.pairs)
    )?;
    writeln!(
        page,
        "| model | what | ours | llama.cpp | ratio | interval | weights read | others |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|")?;
    for line in lines {
        let ratio = line.ratio();
        let read = line.bandwidth.map_or_else(String::new, |(rate, probed)| {
            format!("{rate:.1} GB/s, {:.0} % of {probed:.1} probed", 100.0 * rate / probed)
        });
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} to {} | {read} | {:.0} % |",
            line.model.name(),
            line.kind,
            figure(line.ours(), 1),
            figure(statistics::median(line.pairs.iter().map(|pair| pair.theirs)), 1),
            figure(ratio.median, 2),
            figure(ratio.low, 2),
            figure(ratio.high, 2),
            100.0 * (line.seen.others + line.seen.stolen)
        )?;
    }
    if !head.failures.is_empty() {
        writeln!(page, "\n## Failed\n")?;
        for failure in &head.failures {
            writeln!(page, "- {failure}")?;
        }
    }
    let targets = targets(lines, alone);
    if !targets.is_empty() {
        writeln!(page, "\n## Targets\n\n| target | asked | found | |\n|---|---|---|---|")?;
        for Target { what, asked, found, met } in targets {
            let met = if met { "met" } else { "**missed**" };
            writeln!(page, "| {what} | {asked} | {found} | {met} |")?;
        }
    }
    if let Some(at) = kept.find(NOTES) {
        writeln!(page, "\n{}", kept[at..].trim_end())?;
    }
    Ok(page)
}

/// A number with so many decimals; a dash where nothing could be measured.
fn figure(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "–".to_owned() }
}

impl Line {
    fn ours(&self) -> f64 {
        statistics::median(self.pairs.iter().map(|pair| pair.ours))
    }

    fn ratio(&self) -> Interval {
        Interval::of(self.pairs.iter().map(|pair| pair.ours / pair.theirs))
    }
}

struct Target {
    what: String,
    asked: String,
    found: String,
    met: bool,
}

/// Every target that something was measured for.
fn targets(lines: &[Line], alone: &Alone) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |what: String, asked: String, found: String, met: bool| {
        targets.push(Target { what, asked, found, met });
    };
    let line = |model: Model, kind: Kind| {
        lines.iter().find(|line| line.model == model && line.kind == kind)
    };
    // The lower end of the interval counts.
    let ratios = [
        (Model::OneB, Kind::Decode, 1.05),
        (Model::FourB, Kind::Decode, 1.05),
        (Model::Moe, Kind::Decode, 1.0),
        (Model::OneB, Kind::Prefill(512), 1.0),
        (Model::FourB, Kind::Prefill(512), 1.0),
        (Model::OneB, Kind::ServeDecoding, 1.0),
    ];
    for (model, kind, least) in ratios {
        let Some(line) = line(model, kind) else { continue };
        let low = line.ratio().low;
        let what = format!("{}, {kind}, over llama.cpp", model.name());
        let share = line.bandwidth.map(|(rate, probed)| 100.0 * rate / probed);
        let share = share.map(|share| format!("; {share:.0} % of the probed bandwidth"));
        let found = format!("{} x at the lower end{}", figure(low, 3), share.unwrap_or_default());
        add(what, format!("{least:.2} x"), found, low >= least);
    }
    let ours = |kind: Kind| line(Model::OneB, kind).map(Line::ours);
    let prefill = ours(Kind::Prefill(512));
    for tokens in [128, 2048] {
        let Some((rate, middle)) = ours(Kind::Prefill(tokens)).zip(prefill) else { continue };
        let what = format!("prefill of {tokens} tokens, beside 512");
        let share = rate / middle;
        add(what, "75 %".to_owned(), format!("{:.0} %", 100.0 * share), share >= 0.75);
    }
    let (decode, together) = (ours(Kind::Decode), ours(Kind::ServeDecoding));
    if let (Some(decode), Some(prefill), Some(together)) = (decode, prefill, together) {
        let asked = 0.8 * (f64::from(CLIENTS) * decode).min(prefill);
        let what = format!("{CLIENTS} generations: 0.8 x min({CLIENTS} x decode, prefill)");
        let found = format!("{together:.1} tokens/s");
        add(what, format!("{asked:.1} tokens/s"), found, together >= asked);
    }
    if let (Some(decode), Some(prefill)) = (decode, prefill) {
        for &(prompt, first) in &alone.first_tokens {
            let most = 1.2 * (1e3 / decode).max(1e3 * prompt / prefill) + 5.0;
            let what = format!("first token after a prompt of {prompt:.0}");
            add(what, format!("{most:.0} ms"), format!("{first:.1} ms"), first <= most);
        }
    }
    if let Some(peak) = alone.memory {
        let what = format!("anonymous memory at its peak, {MEMORY_CONTEXT} tokens of context, 1B");
        add(what, "400 MB".to_owned(), format!("{:.0} MB", peak / 1e6), peak <= 400e6);
    }
    for &(kind, rate, probed) in &alone.gate_scans {
        let what =
            format!("gate scan of one layer, 10,240 x 2,560, {kind}, of the probed bandwidth");
        let share = rate / probed;
        let found = format!("{:.0} % ({rate:.1} of {probed:.1} GB/s)", 100.0 * share);
        add(what, "75 %".to_owned(), found, share >= 0.75);
    }
    targets
}
