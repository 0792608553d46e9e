//! The `qm2` command. Everything it does is in [`cli`]; everything that a host can embed is in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
