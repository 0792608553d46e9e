//! The text of an agents file.
//!
//! Must hold: a refusal says why; what is accepted can be written as TOML and read back as itself, every glob in it compiles
//! and matches in reasonable time, and every handler has a name that the ledger takes.

use crate::agents_file::AgentsFile;
use crate::{hook, session_glob};
use qm2_core::id::check_session;
use qm2_core::limit::SESSION_BYTES_MAX;

/// Reads the file.
///
/// # Panics
/// Where something does not hold.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let file = match AgentsFile::parse(text) {
        Ok(file) => file,
        Err(says) => {
            assert!(!says.is_empty());
            return;
        }
    };
    let written = toml::to_string(&file).expect("an agents file can be written");
    let again = AgentsFile::parse(&written);
    assert_eq!(again.as_ref(), Ok(&file), "{written}");
    for entry in &file.agents {
        let glob = session_glob::matcher(&entry.session).expect("a glob was tried");
        for session in [
            "agent:lint:1",
            "",
            &entry.session,
            &"a".repeat(SESSION_BYTES_MAX),
        ] {
            let _ = glob.is_match(session);
        }
        assert!(!entry.command[0].is_empty());
    }
    for entry in &file.hooks {
        assert_eq!(
            hook::check_handler(&entry.name(), entry.time_limit()),
            Ok(())
        );
    }
    let _ = file.hook_timeout_ms();
    for person in &file.people {
        assert_eq!(check_session(&person.session), Ok(()));
        assert_eq!(file.role(&person.session), Some(person.role));
        assert_eq!(file.people().role(&person.session), Some(person.role));
    }
}
