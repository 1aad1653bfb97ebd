//! A program in a pseudo-terminal, and what its user sees: a screen that is kept as a terminal
//! would draw it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long something may take to show on the screen.
const PATIENCE: Duration = Duration::from_secs(240);

/// Ctrl-C.
pub const CTRL_C: &str = "\x03";
/// Ctrl-D.
pub const CTRL_D: &str = "\x04";
/// The key that goes back in the history.
pub const ARROW_UP: &str = "\x1b[A";
/// The key that completes.
pub const TAB: &str = "\t";

/// What was drawn so far.
struct Drawn {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

/// A program in a terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    drawn: Arc<Mutex<Drawn>>,
}

impl Terminal {
    /// Starts the program in a terminal of that size.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Self {
        let (master, slave) = open(rows, columns);
        let stdio = || Stdio::from(slave.try_clone().expect("a descriptor"));
        command.stdin(stdio()).stdout(stdio()).stderr(stdio()).env("TERM", "xterm-256color");
        // SAFETY: between fork and exec only setsid and ioctl run, which are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() == -1 || libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("the program starts");
        drop(slave);
        let parser = vt100::Parser::new(rows, columns, 0);
        let drawn = Arc::new(Mutex::new(Drawn { parser, bytes: Vec::new() }));
        let (screen, mut output) = (Arc::clone(&drawn), File::from(master));
        let keyboard = output.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The terminal reports an error when the last program has left it.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut drawn = screen.lock().expect("the screen");
                drawn.parser.process(&bytes[..count]);
                drawn.bytes.extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, keyboard, drawn }
    }

    /// Presses keys, without waiting for anything.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Types a text, waits until the cursor stands behind it on the screen, and presses Enter.
    pub fn enter(&mut self, line: &str) {
        self.press(line);
        let end: String =
            line.chars().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect();
        self.wait_until(&format!("{line:?} is typed"), |terminal| {
            terminal.before_cursor().ends_with(end.trim_end())
        });
        self.press("\r");
    }

    /// Types a line and waits for the prompt that follows its answer.
    pub fn ask(&mut self, line: &str, prompt: &str) {
        self.enter(line);
        self.wait_for_prompt(prompt);
    }

    /// Waits until the cursor stands behind that prompt with nothing typed.
    pub fn wait_for_prompt(&self, prompt: &str) {
        self.wait_until(&format!("the prompt is {prompt:?}"), |terminal| {
            terminal.before_cursor() == prompt && terminal.last_line() == prompt
        });
    }

    /// Waits until the screen shows a text.
    pub fn wait_for(&self, text: &str) {
        self.wait_until(&format!("the screen shows {text:?}"), |terminal| {
            terminal.screen().contains(text)
        });
    }

    /// Waits until something holds; shows the screen if it does not.
    pub fn wait_until(&self, claim: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < PATIENCE, "{claim}, in vain; the screen:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// The screen's text.
    pub fn screen(&self) -> String {
        self.drawn.lock().expect("the screen").parser.screen().contents()
    }

    /// The lines of the screen, from the last one that contains `first` on.
    pub fn lines_from(&self, first: &str) -> Vec<String> {
        let lines: Vec<String> = self.screen().lines().map(str::to_owned).collect();
        let start = lines.iter().rposition(|line| line.contains(first));
        let start = start.unwrap_or_else(|| panic!("{first:?} is not on:\n{}", self.screen()));
        lines[start..].to_vec()
    }

    /// Every byte that was written to the terminal, as text.
    pub fn bytes(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().expect("the screen").bytes).into_owned()
    }

    /// What stands left of the cursor in its line, without the blanks at its end.
    pub fn before_cursor(&self) -> String {
        let drawn = self.drawn.lock().expect("the screen");
        let screen = drawn.parser.screen();
        let (row, column) = screen.cursor_position();
        // A long input begins some rows higher.
        let mut first = row;
        while first > 0 && screen.row_wrapped(first - 1) {
            first -= 1;
        }
        screen.contents_between(first, 0, row, column).trim_end().to_owned()
    }

    /// The last line with something on it.
    fn last_line(&self) -> String {
        self.screen().trim_end().lines().last().unwrap_or_default().trim_end().to_owned()
    }

    /// The style of the first cell of the last occurrence of a text: bold, and a colour.
    pub fn style_of(&self, text: &str) -> (bool, vt100::Color) {
        let drawn = self.drawn.lock().expect("the screen");
        let screen = drawn.parser.screen();
        let (rows, columns) = screen.size();
        let lines: Vec<String> = screen.rows(0, columns).collect();
        let place = (0..rows).rev().find_map(|row| {
            let line = &lines[usize::from(row)];
            line.rfind(text).map(|at| (row, line[..at].chars().count() as u16))
        });
        let (row, column) = place.unwrap_or_else(|| panic!("{text:?} is not on the screen"));
        let cell = screen.cell(row, column).expect("a cell");
        (cell.bold(), cell.fgcolor())
    }

    /// Waits for the program's end.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end; the screen:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pseudo-terminal of that size: our side and the program's.
fn open(rows: u16, columns: u16) -> (OwnedFd, OwnedFd) {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: openpty writes two descriptors and reads the size; name and termios may be null.
    let opened = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw const size as *mut libc::winsize,
        )
    };
    assert_eq!(opened, 0, "openpty: {}", std::io::Error::last_os_error());
    // SAFETY: both descriptors were just opened and belong to nobody else.
    let pair = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    for descriptor in [&pair.0, &pair.1] {
        // SAFETY: fcntl takes numbers only. Other programs of the test must not inherit the terminal.
        unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    pair
}
