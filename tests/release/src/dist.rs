//! Makes all files of a release, in one folder.
//!
//! The same commit gives the same bytes, wherever the clone lies. Publishes nothing.

use crate::archive::Files;
use crate::checkout::{COMPONENT, CORE_MODULE, Checkout, NAME};
use crate::contract::{self, Contract, Version};
use crate::image::Image;
use crate::{hosts, sbom, schema, sha256, stamp};
use anyhow::{Context as _, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The list of digests.
pub const SUMS: &str = "SHA256SUMS";

/// What the README of the release is made of.
const README: &str = include_str!("../files/README.md");

/// Where the files of a release are made.
#[must_use]
pub fn folder(checkout: &Checkout) -> PathBuf {
    checkout.path("target/dist")
}

/// Name of the archive of the image.
#[must_use]
pub fn image_name(version: &str) -> String {
    format!("{NAME}-{version}.oci.tar")
}

/// Builds the release and writes it into [`folder`], which holds nothing else afterwards.
///
/// # Errors
/// It does not build, or the contract has another version than the workspace.
pub fn make(checkout: &Checkout) -> Result<Files> {
    let files = files(checkout)?;
    let folder = folder(checkout);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for (name, bytes) in &files {
        fs::write(folder.join(name), bytes)
            .with_context(|| format!("{name} cannot be written into {}", folder.display()))?;
    }
    Ok(files)
}

fn files(checkout: &Checkout) -> Result<Files> {
    let version = checkout.version.as_str();
    let contract = Contract::of_folder(&checkout.path("wit"))?;
    ensure!(
        Version::of_text(version) == Some(contract.version()?),
        "the WIT is of version {:?}, and the workspace of {version}",
        contract.version()?
    );
    let mut files = Files::new();
    for product in [COMPONENT, CORE_MODULE] {
        let wasm = stamp::stamped(checkout, product, &checkout.build(product)?)?;
        if product.suffix == COMPONENT.suffix {
            contract::document(&contract, &wasm)?;
        }
        let name = format!("{NAME}-{version}{}", product.suffix);
        let sbom = sbom::json(checkout, product, &wasm)?;
        files.insert(format!("{name}.cdx.json"), sbom);
        files.insert(format!("{name}.wasm"), wasm);
    }
    let component = format!("{NAME}-{version}.wasm");
    let image = Image::new(checkout, &files[&component], &component)?;
    files.insert(image_name(version), image.archive()?);
    let package = format!("{NAME}-{version}-wit.wasm");
    files.insert(package, contract.package_wasm()?);
    let text = contract.package_text()?;
    files.insert(format!("{NAME}-{version}.wit"), text.into_bytes());
    for (of, schema) in [("plan", schema::plan()), ("agents", schema::agents())] {
        let mut text = serde_json::to_vec_pretty(&schema)?;
        text.push(b'\n');
        files.insert(format!("{of}.schema.json"), text);
    }
    files.insert(hosts::name(version), hosts::archive(checkout)?);
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        files.insert(name.into(), fs::read(checkout.path(name))?);
    }
    let readme = README
        .replace("{version}", version)
        .replace("{revision}", &checkout.revision)
        .replace("{image}", &image.digest());
    files.insert("README.md".into(), readme.into_bytes());
    files.insert(SUMS.into(), sums(&files).into_bytes());
    Ok(files)
}

/// What `sha256sum --check` reads.
fn sums(files: &Files) -> String {
    files.iter().fold(String::new(), |mut text, (name, bytes)| {
        let _ = writeln!(text, "{}  {name}", sha256(bytes));
        text
    })
}

/// The image of the release that was made last.
///
/// # Errors
/// None was made, or it is damaged.
pub fn image(checkout: &Checkout) -> Result<Image> {
    let path = folder(checkout).join(image_name(&checkout.version));
    Image::of_archive(&read(&path)?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} is not readable; make it first", path.display()))
}
