//! Memory nodes (NUMA): which of a machine's processors are near which memory, and which thread
//! keeps to which of them.
//!
//! Weights are mapped files, and a page of a file lies on the node whose thread touched it first. A
//! thread that keeps to its node and to its run of tasks (`shares`) finds near itself what it
//! brought there. On a machine of one node nothing is bound.
//!
//! Promises: nodes without a processor that the process may use do not count; a system that does
//! not tell, or refuses to bind, has one node.

/// The processors of each node that this process may use; a single node is told as none.
pub(super) fn nodes() -> Vec<Vec<usize>> {
    let Some(permitted) = permitted() else { return Vec::new() };
    let mut nodes = Vec::new();
    let Ok(folder) = std::fs::read_dir("/sys/devices/system/node") else { return Vec::new() };
    let mut numbers: Vec<usize> = folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("node")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    for number in numbers {
        let path = format!("/sys/devices/system/node/node{number}/cpulist");
        let list = std::fs::read_to_string(path).ok().and_then(|text| parse(&text));
        let mut processors = list.unwrap_or_default();
        processors.retain(|processor| permitted.contains(processor));
        if !processors.is_empty() {
            nodes.push(processors);
        }
    }
    if nodes.len() > 1 { nodes } else { Vec::new() }
}

/// Processors from a list of the kernel's, such as `0-3,8`; `None` if it is no such list.
fn parse(list: &str) -> Option<Vec<usize>> {
    /// More than any kernel has.
    const PROCESSORS_MAX: usize = 1 << 16;
    let mut processors = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= PROCESSORS_MAX {
            return None;
        }
        processors.extend(first..=last);
    }
    Some(processors)
}

/// The node of each of so many threads: neighbours share a node, and nodes get threads as they have
/// processors.
pub(super) fn spread(threads: usize, nodes: &[Vec<usize>]) -> Vec<usize> {
    let processors: usize = nodes.iter().map(Vec::len).sum();
    let node_of = |thread: usize| {
        let place = thread * processors / threads;
        let mut end = 0;
        let within = |node: &Vec<usize>| {
            end += node.len();
            place < end
        };
        nodes.iter().position(within).unwrap_or(0)
    };
    (0..threads).map(node_of).collect()
}

#[cfg(target_os = "linux")]
fn permitted() -> Option<std::collections::BTreeSet<usize>> {
    // SAFETY: a set of processors is numbers, for which zeros are the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as is said, and ours.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    let all = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: the numbers are below the size of a set.
    (failed == 0).then(|| all.filter(|&one| unsafe { libc::CPU_ISSET(one, &set) }).collect())
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> Option<std::collections::BTreeSet<usize>> {
    None
}

/// Lets the calling thread run on these processors only. A refusal changes nothing.
#[cfg(target_os = "linux")]
pub(super) fn bind(processors: &[usize]) {
    // SAFETY: a set of processors is numbers, for which zeros are the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &processor in processors.iter().filter(|&&one| one < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is below the size of a set.
        unsafe { libc::CPU_SET(processor, &mut set) };
    }
    // SAFETY: the set is as large as is said; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn bind(_processors: &[usize]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read_and_what_is_no_list_is_refused() {
        assert_eq!(parse("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse("\n"), Some(vec![]));
        for bad in ["a", "1-", "-1", "0-99999999999", "5-70000"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn neighbouring_threads_share_a_node_and_nodes_get_as_many_as_they_have_processors() {
        let two = [vec![0, 1, 2, 3], vec![4, 5, 6, 7]];
        assert_eq!(spread(4, &two), [0, 0, 1, 1]);
        assert_eq!(spread(1, &two), [0]);
        let uneven = [vec![0, 1, 2, 3, 4, 5], vec![6, 7]];
        assert_eq!(spread(4, &uneven), [0, 0, 0, 1]);
        assert_eq!(spread(3, &[]), [0, 0, 0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_bound_thread_may_use_its_processors_and_no_others() {
        let all = permitted().expect("Linux tells");
        let one = *all.first().expect("this thread runs somewhere");
        let bound = std::thread::spawn(move || {
            bind(&[one]);
            permitted()
        });
        assert_eq!(bound.join().unwrap(), Some([one].into()));
        assert_eq!(permitted(), Some(all));
    }
}
