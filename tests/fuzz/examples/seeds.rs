//! Makes inputs of the targets `ledger_line` and `snapshot` out of those of `envelope`: the ledgers and snapshots that the
//! domains have in the end.
//!
//! `cargo run --example seeds -- corpus/envelope OUT` writes below `OUT/ledger_line` and `OUT/snapshot`; `.ci/fuzz --minimise`
//! chooses from them.

use qm2_core::digest::sha256_hex;
use qm2_fuzz::target::envelope;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else {
        return Err(io::Error::other(
            "say where the calls are, and where to write",
        ));
    };
    let to = Path::new(to);
    for entry in fs::read_dir(from)? {
        let calls = fs::read(entry?.path())?;
        let world = envelope::play(&String::from_utf8_lossy(&calls), false);
        keep(&to.join("ledger_line"), &world.lines)?;
        keep(&to.join("snapshot"), &world.chunks(1 << 20))?;
        keep(&to.join("snapshot"), &world.chunks(1))?;
    }
    Ok(())
}

/// Named as libFuzzer names its own, by content.
fn keep(folder: &Path, lines: &[String]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let text = lines.join("\n");
    let name = &sha256_hex(&[text.as_bytes()])[..40];
    fs::write(folder.join(name), text)
}
