//! How far a long statement is, on stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::render::text;
use crate::event::Progress;

/// How often a bar is drawn again when nothing arrives.
const TICK: Duration = Duration::from_millis(100);

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressMode {
    /// Not at all.
    Off,
    /// A bar that is drawn over and removed at the end.
    Bar,
    /// A line whenever a stage begins: for a log.
    Lines,
}

impl ProgressMode {
    /// A bar if stderr is a terminal, else nothing.
    pub fn for_terminal(quiet: bool) -> ProgressMode {
        if !quiet && io::stderr().is_terminal() { ProgressMode::Bar } else { ProgressMode::Off }
    }
}

/// Shows the progress of one statement after the other.
pub(crate) struct ProgressView {
    mode: ProgressMode,
    bar: Option<ProgressBar>,
    stage: String,
}

impl ProgressView {
    pub(crate) fn new(mode: ProgressMode) -> ProgressView {
        ProgressView { mode, bar: None, stage: String::new() }
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let stage = text::escape(&progress.stage).into_owned();
        match self.mode {
            ProgressMode::Off => {}
            ProgressMode::Lines => {
                if stage != self.stage {
                    let _ = writeln!(io::stderr(), "  {stage} …");
                    self.stage = stage;
                }
            }
            ProgressMode::Bar => {
                let fresh = self.bar.is_none();
                let bar = self.bar.get_or_insert_with(|| {
                    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
                });
                if fresh || stage != self.stage || bar.length() != Some(progress.total) {
                    bar.set_style(style(progress));
                    bar.set_length(progress.total);
                }
                self.stage = stage;
                bar.set_prefix(self.stage.clone());
                bar.set_message(text::escape(&progress.unit).into_owned());
                bar.set_position(progress.done);
                if fresh {
                    bar.enable_steady_tick(TICK);
                }
            }
        }
    }

    /// Removes what is shown, so that something else can be written.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.stage.clear();
    }
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The look of a stage: a bar if its end is known, bytes in units if it counts bytes.
fn style(progress: &Progress) -> ProgressStyle {
    let template = match (progress.total, progress.unit.as_str()) {
        (0, "bytes") => "{spinner} {prefix}: {decimal_bytes} ({decimal_bytes_per_sec})",
        (0, _) => "{spinner} {prefix}: {pos} {msg}",
        (_, "bytes") => {
            "{prefix:24} {wide_bar} {decimal_bytes}/{decimal_total_bytes} ({decimal_bytes_per_sec}, {eta})"
        }
        _ => "{prefix:24} {wide_bar} {pos}/{len} {msg} ({eta})",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
