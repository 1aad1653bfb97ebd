//! The terminal's size, and a pager for what does not fit.

use std::io::{self, BufWriter, Stdout, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

/// Returns the size of the terminal at stdout as (rows, columns); None if it is none or does not tell.
pub(super) fn size() -> Option<(usize, usize)> {
    size_of(&io::stdout())
}

/// The same of another stream.
pub(super) fn size_of(stream: &impl AsRawFd) -> Option<(usize, usize)> {
    // SAFETY: winsize is plain numbers, for which zero is a value.
    let mut found: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one winsize, and `found` is one.
    let answer = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCGWINSZ, &raw mut found) };
    let known = answer == 0 && found.ws_row > 0 && found.ws_col > 0;
    known.then(|| (usize::from(found.ws_row), usize::from(found.ws_col)))
}

/// Writes to stdout, through a pager once the text is longer than the screen.
///
/// Lines are held back until the screen would be full; a pager that cannot be started, or that
/// `$PAGER` sets to nothing or to `cat`, leaves stdout as it is.
pub(super) struct Pager {
    /// Lines that fit; None: nothing is ever paged.
    rows: Option<usize>,
    lines: usize,
    held_back: Vec<u8>,
    child: Option<Child>,
    stdout: BufWriter<Stdout>,
}

impl Pager {
    /// A pager for a screen of this many rows; None turns it off.
    pub(super) fn new(rows: Option<usize>) -> Pager {
        // One row stays free for the summary and one for the prompt.
        Pager {
            rows: rows.map(|rows| rows.saturating_sub(2)),
            lines: 0,
            held_back: Vec::new(),
            child: None,
            stdout: BufWriter::new(io::stdout()),
        }
    }

    fn open(&mut self) -> io::Result<()> {
        self.rows = None;
        self.child = spawn();
        let held_back = std::mem::take(&mut self.held_back);
        self.write_all(&held_back)
    }

    /// Writes what is held back, and waits until the reader has left the pager.
    ///
    /// # Errors
    /// What stdout says.
    pub(super) fn close(mut self) -> io::Result<()> {
        match self.child.take() {
            Some(mut child) => {
                drop(child.stdin.take());
                child.wait()?;
                Ok(())
            }
            None => {
                self.stdout.write_all(&self.held_back)?;
                self.stdout.flush()
            }
        }
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(rows) = self.rows else {
            return match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
                Some(stdin) => stdin.write(bytes),
                None => self.stdout.write(bytes),
            };
        };
        self.held_back.extend_from_slice(bytes);
        self.lines += bytes.iter().filter(|&&b| b == b'\n').count();
        if self.lines > rows {
            self.open()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match (&self.rows, self.child.as_mut().and_then(|child| child.stdin.as_mut())) {
            (Some(_), _) => Ok(()),
            (None, Some(stdin)) => stdin.flush(),
            (None, None) => self.stdout.flush(),
        }
    }
}

/// Starts `$PAGER`, or less.
fn spawn() -> Option<Child> {
    let mut command = match std::env::var("PAGER") {
        Ok(pager) if matches!(pager.trim(), "" | "cat") => return None,
        Ok(pager) => {
            let mut command = Command::new("sh");
            command.arg("-c").arg(pager);
            command
        }
        Err(_) => {
            let mut command = Command::new("less");
            // Long lines are cut, a short text ends the pager, colours pass, the screen stays.
            command.arg("-SFRX");
            command
        }
    };
    command.stdin(Stdio::piped()).spawn().ok()
}
