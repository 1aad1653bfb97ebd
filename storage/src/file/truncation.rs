//! Keeps the process alive when a mapped file shrinks under it.
//!
//! Reading a page beyond the end of a truncated file raises SIGBUS, whose default is death. The
//! first mapping installs a handler that looks the fault address up in a fixed table of our
//! mappings. A hit: anonymous zero pages replace the mapping from the faulting page to its end (what
//! lies behind the new end of the file is gone as a whole), the mapping is marked lost, and the read
//! continues with zeros that `Mapping::check` will disown. A miss: the disposition found at
//! installation is restored, so that the fault is handled as if we had never been here.
//!
//! The handler touches atomics, `mmap` and `sigaction` only, and keeps `errno`.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};

/// Mappings that may be registered at once; a model is a few dozen files.
const SLOTS: usize = 4096;

struct Slot {
    /// Held by a registration; guards the rest against a second owner.
    taken: AtomicBool,
    /// Odd while `start` and `end` change, so that the handler never sees one without the other.
    version: AtomicUsize,
    /// First address, or 0 for nobody's.
    start: AtomicUsize,
    /// First address behind the last page.
    end: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        version: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; SLOTS];

impl Slot {
    fn set(&self, start: usize, end: usize) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// The registered range; `None` for a free slot or one in motion, which is no mapping that the
    /// asking thread could be reading.
    fn range(&self) -> Option<std::ops::Range<usize>> {
        let version = self.version.load(Ordering::SeqCst);
        let range = self.start.load(Ordering::SeqCst)..self.end.load(Ordering::SeqCst);
        let settled = version.is_multiple_of(2) && version == self.version.load(Ordering::SeqCst);
        (settled && range.start != 0).then_some(range)
    }
}

/// Bytes of a page, set before the handler can run.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

/// The disposition found at installation; null until then. Leaked on purpose: a handler may read it
/// at any time.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// A place in the table, given back on drop (before the range is unmapped).
#[derive(Debug)]
pub(super) struct Registration {
    slot: usize,
}

impl Registration {
    /// Whether a read of this mapping met a page that no longer exists.
    pub(super) fn lost(&self) -> bool {
        TABLE[self.slot].lost.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let slot = &TABLE[self.slot];
        slot.set(0, 0);
        slot.taken.store(false, Ordering::SeqCst);
    }
}

/// Protects the mapped range that starts at page-aligned `start` and has `length` bytes.
///
/// # Errors
/// When the handler cannot be installed or the table is full.
pub(super) fn register(start: usize, length: usize) -> io::Result<Registration> {
    install()?;
    let page_bytes = PAGE_BYTES.load(Ordering::Relaxed);
    let end = start + length.next_multiple_of(page_bytes);
    for (index, slot) in TABLE.iter().enumerate() {
        let free = slot.taken.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed);
        if free.is_ok() {
            slot.lost.store(false, Ordering::SeqCst);
            slot.set(start, end);
            return Ok(Registration { slot: index });
        }
    }
    Err(io::Error::other(format!("more than {SLOTS} files are mapped; unmount some models")))
}

/// Installs the handler once for the process.
fn install() -> io::Result<()> {
    static OUTCOME: OnceLock<Result<(), i32>> = OnceLock::new();
    static PAGE: LazyLock<usize> = LazyLock::new(|| {
        // SAFETY: `sysconf` has no preconditions.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).unwrap_or(4096)
    });
    PAGE_BYTES.store(*PAGE, Ordering::SeqCst);
    let outcome = OUTCOME.get_or_init(|| {
        let mut previous = Box::new(MaybeUninit::<libc::sigaction>::zeroed());
        // SAFETY: `previous` is writable memory of the right type; a null new action only reads.
        if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), previous.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        PREVIOUS.store(Box::into_raw(previous).cast(), Ordering::SeqCst);
        // SAFETY: an all-zero `sigaction` is a valid value (default handler, empty mask).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `action` is initialised, and its handler is async-signal-safe (see there).
        if unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        Ok(())
    });
    outcome.map_err(io::Error::from_raw_os_error)
}

extern "C" fn on_bus_error(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: errno's location is valid for the calling thread.
    let errno = unsafe { *errno_location() };
    // SAFETY: the kernel passes a valid `siginfo_t` to an SA_SIGINFO handler.
    let (address, sent_by_process) = unsafe { ((*info).si_addr() as usize, (*info).si_code <= 0) };
    if sent_by_process || !replace_lost_pages(address) {
        // SAFETY: `PREVIOUS` points to a leaked, initialised action since before installation;
        // `sigaction` and `raise` are async-signal-safe.
        unsafe {
            libc::sigaction(libc::SIGBUS, PREVIOUS.load(Ordering::SeqCst), std::ptr::null_mut());
            if sent_by_process {
                // A fault repeats by itself on return; a sent signal has to be sent again.
                libc::raise(libc::SIGBUS);
            }
        }
    }
    // SAFETY: as above.
    unsafe { *errno_location() = errno };
}

/// Puts zero pages where `address` and everything after it in its mapping used to be.
fn replace_lost_pages(address: usize) -> bool {
    let page = address & !(PAGE_BYTES.load(Ordering::SeqCst) - 1);
    for slot in &TABLE {
        let Some(range) = slot.range() else { continue };
        if !range.contains(&address) {
            continue;
        }
        slot.lost.store(true, Ordering::SeqCst);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: `page..range.end` lies inside one mapping of ours, which stays mapped while the faulting
        // thread borrows it; the memory is read-only before and after, and only zeros replace bytes
        // that no longer exist. `mmap` is a bare system call, usable in a handler.
        let placed = unsafe {
            libc::mmap(page as *mut libc::c_void, range.end - page, libc::PROT_READ, flags, -1, 0)
        };
        return placed != libc::MAP_FAILED;
    }
    false
}

#[cfg(target_os = "linux")]
fn errno_location() -> *mut i32 {
    // SAFETY: no preconditions.
    unsafe { libc::__errno_location() }
}

#[cfg(not(target_os = "linux"))]
fn errno_location() -> *mut i32 {
    // SAFETY: no preconditions.
    unsafe { libc::__error() }
}

#[cfg(test)]
mod tests {
    use crate::file::{DiskFiles, Files};
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Runs one ignored test of this binary in a process of its own.
    fn run_alone(name: &str) -> std::process::ExitStatus {
        let name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
        let program = std::env::current_exe().unwrap();
        Command::new(program).args(["--ignored", "--exact", &name]).output().unwrap().status
    }

    #[test]
    fn fault_outside_our_mappings_still_ends_the_process() {
        assert_eq!(
            run_alone("child_reads_a_truncated_mapping_that_is_not_ours").signal(),
            Some(libc::SIGBUS)
        );
    }

    #[test]
    #[ignore = "dies by design; run by fault_outside_our_mappings_still_ends_the_process"]
    fn child_reads_a_truncated_mapping_that_is_not_ours() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
        for path in [&ours, &theirs] {
            std::fs::write(path, vec![7; 20_000]).unwrap();
        }
        let _mapping = DiskFiles.map(&ours).unwrap();
        let file = File::options().read(true).write(true).open(&theirs).unwrap();
        // SAFETY: nobody but this test has the file; its truncation below is the point.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        file.set_len(0).unwrap();
        println!("{}", map[19_999]);
    }

    #[test]
    fn bus_error_sent_by_another_process_still_ends_the_process() {
        assert_eq!(run_alone("child_sends_itself_a_bus_error").signal(), Some(libc::SIGBUS));
    }

    #[test]
    #[ignore = "dies by design; run by bus_error_sent_by_another_process_still_ends_the_process"]
    fn child_sends_itself_a_bus_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours");
        std::fs::write(&path, vec![7; 20_000]).unwrap();
        let _mapping = DiskFiles.map(&path).unwrap();
        // The handler that the standard library installs (and we restore) takes a first one for a
        // fault that will repeat, and gives way to the default.
        for _ in 0..2 {
            // SAFETY: `raise` has no preconditions.
            unsafe { libc::raise(libc::SIGBUS) };
        }
    }

    #[test]
    fn table_is_given_back_when_mappings_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [7; 10]).unwrap();
        for _ in 0..super::SLOTS + 1 {
            DiskFiles.map(&path).unwrap();
        }
    }
}
