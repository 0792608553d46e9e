//! What is measured beside the benchmark itself: the disk, its flushes, memory, and the spread of durations.
//!
//! What the system does not tell is left out, never guessed.

use super::Failure;
use serde::Serialize;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the disk is probed.
const PROBE: Duration = Duration::from_secs(1);

/// How fast 4 KiB are appended and made durable, one after another.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    per_second: u64,
    p50_us: u64,
    p99_us: u64,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            per_second,
            p50_us,
            p99_us,
        } = self;
        write!(
            f,
            "{per_second} fdatasync/s, p50 {p50_us} us, p99 {p99_us} us"
        )
    }
}

/// Probes the disk of a folder.
pub fn probe(folder: &Path) -> Result<Disk, Failure> {
    let path = folder.join("probe.bin");
    let failed = |error: io::Error| {
        Failure::host("io", format!("{}: the disk probe: {error}", path.display()))
    };
    let mut file = File::create(&path).map_err(failed)?;
    let block = [b'x'; 4096];
    let (started, mut took) = (Instant::now(), Vec::new());
    while started.elapsed() < PROBE {
        let from = Instant::now();
        file.write_all(&block).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        took.push(from.elapsed());
    }
    let elapsed = started.elapsed();
    fs::remove_file(&path).map_err(failed)?;
    let spread = Spread::of(&mut took);
    Ok(Disk {
        per_second: per_second(took.len(), elapsed),
        p50_us: (spread.p50_ms * 1_000.0) as u64,
        p99_us: (spread.p99_ms * 1_000.0) as u64,
    })
}

/// So many in so long.
pub fn per_second(count: usize, elapsed: Duration) -> u64 {
    (count as f64 / elapsed.as_secs_f64()) as u64
}

/// Milliseconds with three digits behind the point.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// How durations are spread.
#[derive(Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Spread {
    /// Sorts them.
    pub fn of(durations: &mut [Duration]) -> Self {
        durations.sort_unstable();
        let at = |share: usize| {
            let index = durations.len() * share / 100;
            durations
                .get(index.min(durations.len().saturating_sub(1)))
                .map_or(0.0, |duration| ms(*duration))
        };
        Self {
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {} ms, p99 {} ms, max {} ms",
            self.p50_ms, self.p99_ms, self.max_ms
        )
    }
}

/// Flushes that the disk of a folder has done so far, whoever asked for them; none where the system does not tell.
pub fn flushes(folder: &Path) -> Option<u64> {
    let device = fs::metadata(folder).ok()?.dev();
    // As glibc takes a device number apart.
    let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
    let minor = (device & 0xff) | (device >> 12 & !0xff);
    let mut block = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // Only whole disks count flushes.
    if block.join("partition").exists() {
        block.pop();
    }
    let stat = fs::read_to_string(block.join("stat")).ok()?;
    stat.split_whitespace().nth(15)?.parse().ok()
}

/// Flushes since a count, if both are known.
pub fn flushes_since(folder: &Path, before: Option<u64>) -> Option<u64> {
    Some(flushes(folder)?.saturating_sub(before?))
}

/// The most memory that this process ever had.
pub fn peak_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

/// Bytes of the files of a folder.
pub fn bytes_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok());
    sizes.filter(|it| it.is_file()).map(|it| it.len()).sum()
}

/// For people: a number that the system may not tell.
pub fn shown(number: Option<u64>) -> String {
    number.map_or("unknown".to_owned(), |number| number.to_string())
}
