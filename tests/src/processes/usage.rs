//! What a process uses of the machine, as `/proc` has it.

use std::time::Duration;

use super::Process;

impl Process {
    /// Processor time that it has used since its latest start, to a hundredth of a second.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        const TICK: Duration = Duration::from_millis(10);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        // User and system time are the 14th and 15th field, and the first two are cut off.
        let ticks = fields.split(' ').skip(11).take(2);
        ticks
            .map(|ticks| TICK * ticks.parse::<u32>().unwrap())
            .sum()
    }

    /// The maximum of the memory that it has occupied since its latest start, in KiB.
    #[must_use]
    pub fn peak_kib(&self) -> usize {
        self.memory("VmHWM:")
    }

    /// Memory that it occupies, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> usize {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix(field));
        let size = size.and_then(|size| size.trim().strip_suffix(" kB"));
        size.unwrap().parse().unwrap()
    }

    /// How many threads it has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.entries("task")
    }

    /// How many file descriptors it has open.
    #[must_use]
    pub fn open_descriptors(&self) -> usize {
        self.entries("fd")
    }

    fn entries(&self, folder: &str) -> usize {
        let entries = std::fs::read_dir(format!("/proc/{}/{folder}", self.pid()));
        entries.unwrap().count()
    }
}
