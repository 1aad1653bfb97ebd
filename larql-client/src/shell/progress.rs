//! How far a long statement is, on stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::render::text;
use super::terminal;
use crate::event::Progress;

/// How often a bar is drawn again when nothing arrives.
const TICK: Duration = Duration::from_millis(100);

/// How often a bar is drawn at most.
const FRAMES_PER_SECOND: u8 = 20;
/// Columns that stay free at the end of a bar: the `^C` that the terminal shows for Ctrl-C would
/// wrap otherwise, and the bar would stay above it.
const COLUMNS_FREE: usize = 2;

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
                    let screen = Box::new(Screen::default());
                    let target = ProgressDrawTarget::term_like_with_hz(screen, FRAMES_PER_SECOND);
                    ProgressBar::with_draw_target(None, target)
                });
                if fresh || stage != self.stage || bar.length() != Some(progress.total) {
                    bar.set_style(style(progress));
                    bar.set_prefix(stage.clone());
                    bar.set_message(text::escape(&progress.unit).into_owned());
                    bar.set_length(progress.total);
                }
                self.stage = stage;
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

/// The terminal at stderr, as a bar sees it.
#[derive(Debug, Default)]
struct Screen {
    /// What is written at the next flush.
    frame: Mutex<String>,
}

impl Screen {
    fn put(&self, text: &str) -> io::Result<()> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    fn move_by(&self, count: usize, direction: char) -> io::Result<()> {
        match count {
            0 => Ok(()),
            _ => self.put(&format!("\x1b[{count}{direction}")),
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        let columns = terminal::size_of(&io::stderr()).map_or(80, |(_, columns)| columns);
        u16::try_from(columns.saturating_sub(COLUMNS_FREE).max(1)).unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        let rows = terminal::size_of(&io::stderr()).map_or(24, |(rows, _)| rows);
        u16::try_from(rows).unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.move_by(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.move_by(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.move_by(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.move_by(count, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.put(line)?;
        self.put("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.put(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.frame.lock().unwrap_or_else(PoisonError::into_inner));
        io::stderr().write_all(frame.as_bytes())
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
