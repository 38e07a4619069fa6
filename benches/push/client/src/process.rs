//! What the server takes: CPU and memory of a process and of those that it has started, from /proc.

use std::collections::HashMap;
use std::fs;

#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// User and system time, in ticks of 10 ms, also of threads that have ended.
    ticks: f64,
    /// To the nanosecond, of the threads that live.
    living: f64,
}

const TICK: f64 = 0.01;

impl Cpu {
    /// Seconds since `earlier`; the exact figure where no thread took more with it than the ticks could have lost.
    pub fn since(&self, earlier: &Cpu, processes: usize) -> f64 {
        let (ticks, living) = (self.ticks - earlier.ticks, self.living - earlier.living);
        if (ticks - living).abs() <= 2.5 * TICK * processes as f64 { living } else { ticks }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// RssAnon of all, in bytes.
    pub anonymous: u64,
    /// RssShmem of the one that has most, since all share it.
    pub shared: u64,
    /// VmHWM of the one that has most.
    pub peak: u64,
}

/// The process `pid` and its descendants.
#[derive(Clone, Debug)]
pub struct Processes(Vec<u32>);

impl Processes {
    pub fn of(pid: u32) -> Processes {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(found) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Some(parent) = stat(found).and_then(|fields| fields.get(1)?.parse().ok()) else { continue };
            children.entry(parent).or_default().push(found);
        }
        let mut all = vec![pid];
        let mut next = 0;
        while next < all.len() {
            all.extend(children.remove(&all[next]).unwrap_or_default());
            next += 1;
        }
        Processes(all)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn cpu(&self) -> Cpu {
        let ticks = |pid: &u32| {
            let fields = stat(*pid)?;
            Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
        };
        let ticks: f64 = self.0.iter().filter_map(ticks).sum();
        let mut living = 0;
        for pid in &self.0 {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                living += text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Cpu { ticks: ticks * TICK, living: living as f64 / 1e9 }
    }

    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for pid in &self.0 {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let bytes = |key| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
            };
            memory.anonymous += bytes("RssAnon:");
            memory.shared = memory.shared.max(bytes("RssShmem:"));
            memory.peak = memory.peak.max(bytes("VmHWM:"));
        }
        memory
    }
}

/// The fields after the name, which may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}
