//! Many files as one: a tar with nothing in it that differs from machine to machine, compressed where it is kept for long.
//!
//! Any `tar` unpacks it, with `xz` where it ends in `.xz`.

use anyhow::{Context as _, Result};
use lzma_rust2::{XzOptions, XzReader, XzWriter};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

/// Most that is tried to make it small; the files are read much more often than made.
const PRESET: u32 = 9;

/// Names and bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files as a tar, in the order of their names.
///
/// # Errors
/// A name is too long.
pub fn tar(files: &Files) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        // A script is to be run.
        header.set_mode(if name.ends_with(".sh") { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, name, bytes.as_slice())
            .with_context(|| format!("{name} does not go into an archive"))?;
    }
    Ok(tar.into_inner()?)
}

/// The files of a tar.
///
/// # Errors
/// It is none.
pub fn untar(bytes: &[u8]) -> Result<Files> {
    let mut files = Files::new();
    for entry in tar::Archive::new(bytes).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(name, bytes);
    }
    Ok(files)
}

/// The files as a `.tar.xz`.
///
/// # Errors
/// As [`tar`].
pub fn tar_xz(files: &Files) -> Result<Vec<u8>> {
    let mut xz = XzWriter::new(Vec::new(), XzOptions::with_preset(PRESET))?;
    xz.write_all(&tar(files)?)?;
    Ok(xz.finish()?)
}

/// The files of a `.tar.xz`.
///
/// # Errors
/// It is none.
pub fn untar_xz(bytes: &[u8]) -> Result<Files> {
    let mut tar = Vec::new();
    XzReader::new(bytes, true).read_to_end(&mut tar)?;
    untar(&tar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_the_same_goes_in_as_the_same_bytes() {
        let long = format!("a/{}", "n".repeat(90));
        let files = Files::from([
            ("b.json".to_owned(), vec![b'x'; 100_000]),
            (long, b"{}".to_vec()),
        ]);
        let archive = tar_xz(&files).expect("it is packed");
        assert!(archive.len() < 1_000, "{}", archive.len());
        assert_eq!(untar_xz(&archive).expect("it is unpacked"), files);
        assert_eq!(tar_xz(&files).expect("it is packed again"), archive);
        let mut damaged = archive.clone();
        damaged[archive.len() / 2] ^= 1;
        assert_ne!(untar_xz(&damaged).ok(), Some(files));
    }
}
