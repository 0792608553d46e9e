//! What a WebAssembly file says of itself: name, version, description, licence, revision. Tools show it, and registries index it.
//!
//! Adds custom sections and changes no code. Names no authors and no time.

use crate::checkout::{Checkout, NAME, Product};
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use wasm_metadata::{
    AddMetadata, AddMetadataField, Description, Homepage, Licenses, Metadata, Payload, Revision,
    Source, Version,
};

/// The file with what it says of itself.
///
/// # Errors
/// The licence or an address of the workspace is none.
pub fn stamped(checkout: &Checkout, product: Product, wasm: &[u8]) -> Result<Vec<u8>> {
    let mut add = AddMetadata::default();
    add.name = AddMetadataField::Set(format!("{NAME}{}", product.suffix));
    add.version = AddMetadataField::Set(Version::new(checkout.version.clone()));
    add.description = AddMetadataField::Set(Description::new(product.description));
    add.licenses = AddMetadataField::Set(Licenses::new(&checkout.license)?);
    add.revision = AddMetadataField::Set(Revision::new(checkout.revision.clone()));
    if let Some(repository) = &checkout.repository {
        add.source = AddMetadataField::Set(Source::new(repository)?);
    }
    if let Some(homepage) = &checkout.homepage {
        add.homepage = AddMetadataField::Set(Homepage::new(homepage)?);
    }
    add.to_wasm(wasm)
        .context("metadata cannot be added to the file")
}

/// What a file says of itself.
///
/// # Errors
/// It is no WebAssembly.
pub fn read(wasm: &[u8]) -> Result<Metadata> {
    Ok(match Payload::from_binary(wasm)? {
        Payload::Component { metadata, .. } | Payload::Module(metadata) => metadata,
    })
}

/// What a file says of itself under the names that OCI has for it.
///
/// # Errors
/// It is no WebAssembly.
pub fn annotations(wasm: &[u8]) -> Result<BTreeMap<String, String>> {
    let metadata = read(wasm)?;
    let text = |field: Option<String>, name: &str| {
        field.map(|text| (format!("org.opencontainers.image.{name}"), text))
    };
    let Metadata {
        name,
        description,
        licenses,
        source,
        homepage,
        revision,
        version,
        ..
    } = metadata;
    let fields = [
        text(name, "title"),
        text(description.map(|it| it.to_string()), "description"),
        text(licenses.map(|it| it.to_string()), "licenses"),
        text(source.map(|it| it.to_string()), "source"),
        text(homepage.map(|it| it.to_string()), "url"),
        text(revision.map(|it| it.to_string()), "revision"),
        text(version.map(|it| it.to_string()), "version"),
    ];
    Ok(fields.into_iter().flatten().collect())
}
