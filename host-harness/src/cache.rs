//! The compiled component in a cache folder, so that a warm start does not compile.
//!
//! A cache is never needed: what cannot be read, trusted or written is compiled anew and a note is logged. Compiled code is
//! loaded only from a folder that nobody else may write to, and only if it carries the digest of its own content.

use crate::error::{HostError, Result};
use crate::paths;
use qm2_core::digest::sha256_hex;
use sha2::{Digest, Sha256};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Hexadecimal digest of the rest of the file, at its beginning.
const DIGEST_BYTES: usize = 64;

/// The component, from the cache if it can be.
pub(crate) fn compiled(
    engine: &Engine,
    component: &[u8],
    fallback: Option<&Path>,
) -> Result<Component> {
    let Some(folder) = folder(fallback) else {
        return compile(engine, component);
    };
    let path = folder.join(file_name(engine, component));
    match read(engine, &path) {
        Ok(Some(component)) => return Ok(component),
        Ok(None) => {}
        Err(says) => tracing::warn!("{} is not used: {says}", path.display()),
    }
    let compiled = compile(engine, component)?;
    let written = compiled
        .serialize()
        .map_err(|e| format!("{e:#}"))
        .and_then(|bytes| write(&path, &bytes).map_err(|e| e.to_string()));
    if let Err(says) = written {
        tracing::warn!(
            "the compiled component is not cached in {}: {says}",
            path.display()
        );
    }
    Ok(compiled)
}

fn compile(engine: &Engine, component: &[u8]) -> Result<Component> {
    Component::new(engine, component).map_err(|e| HostError::Component(format!("{e:#}")))
}

/// `QM2_CACHE_DIR`, else the user's cache folder, else the fallback; the first that can be made and trusted.
fn folder(fallback: Option<&Path>) -> Option<PathBuf> {
    let named = std::env::var_os("QM2_CACHE_DIR")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let users = || dirs::cache_dir().map(|folder| folder.join("qm2"));
    named
        .or_else(users)
        .into_iter()
        .chain(fallback.map(Path::to_path_buf))
        .find(|folder| match paths::private_folder(folder) {
            Ok(()) => true,
            Err(e) => {
                tracing::debug!("no cache in {}: {e}", folder.display());
                false
            }
        })
}

/// Other bytes, other compiler or other settings: another file.
fn file_name(engine: &Engine, component: &[u8]) -> String {
    let mut settings = Sha256Hasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    let settings = settings.0.finalize();
    let key = sha256_hex(&[component, settings.as_slice()]);
    format!("qm2-component-{}.bin", &key[..40])
}

/// `Hasher` that keeps all bits, and the same ones in every process.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

fn read(engine: &Engine, path: &Path) -> Result<Option<Component>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let Some((digest, code)) = bytes.split_at_checked(DIGEST_BYTES) else {
        return Err("it is cut off".into());
    };
    if sha256_hex(&[code]).as_bytes() != digest {
        return Err("it does not have the digest that it names".into());
    }
    // SAFETY: the bytes are what `Component::serialize` gave this program: they lie in a folder that only this user may
    // write to, carry the digest written with them, and wasmtime itself tests version and settings.
    #[allow(unsafe_code)]
    let component = unsafe { Component::deserialize(engine, code) };
    component.map(Some).map_err(|e| format!("{e:#}"))
}

/// Writes beside and renames, so that no reader ever sees half a file.
fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    // Others may write the same at the same time, also in this process.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{write}.tmp", std::process::id()));
    let result = (|| {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(sha256_hex(&[code]).as_bytes())?;
        file.write_all(code)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}
