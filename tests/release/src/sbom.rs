//! What goes into a WebAssembly file, as CycloneDX: every package that is linked into it, and every one that only helps to build it.
//!
//! Which these are says `cargo tree` for exactly this package and target: `cargo metadata` would count in what other members of the
//! workspace turn on. Licences and edges come from `cargo metadata`, checksums from the lock file. No serial number and no time, so that
//! the same commit gives the same bytes.

use crate::checkout::{Checkout, NAME, Product, rustc_version};
use crate::guest::TARGET;
use crate::sha256;
use anyhow::{Context as _, Result, bail};
use cargo_metadata::{CargoOpt, Metadata as Workspace, MetadataCommand, Package, PackageId};
use cyclonedx_bom::models::component::{Classification, Component, Components, Scope};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata;
use cyclonedx_bom::prelude::{
    Bom, NormalizedString, Purl, SpdxExpression, SpecVersion, Validate as _,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

/// Name and version; the lock file has no two packages that share both.
type Key = (String, String);

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The bill of materials of a file, as JSON.
///
/// # Errors
/// cargo does not say what is in it, or a package has no licence.
pub fn json(checkout: &Checkout, product: Product, wasm: &[u8]) -> Result<Vec<u8>> {
    let linked = tree(checkout, product, "normal,no-proc-macro")?;
    let all = tree(checkout, product, "normal,build")?;
    let workspace = MetadataCommand::new()
        .manifest_path(checkout.path("Cargo.toml"))
        .features(CargoOpt::SomeFeatures(Vec::new()))
        .other_options(["--locked", "--filter-platform", TARGET].map(str::to_owned))
        .exec()?;
    let lock: Lock = toml::from_str(&checkout.text("Cargo.lock")?)?;
    let checksums: BTreeMap<Key, String> = lock
        .package
        .into_iter()
        .filter_map(|it| Some(((it.name, it.version), it.checksum?)))
        .collect();

    let mut components = Vec::new();
    let mut references = BTreeMap::new();
    let mut std = Component::new(
        Classification::Library,
        "std",
        &rustc_version()?,
        Some("rust-std".into()),
    );
    std.description = Some(NormalizedString::new("The Rust standard library."));
    std.licenses = Some(expression("MIT OR Apache-2.0")?);
    std.scope = Some(Scope::Required);
    for key in &all {
        let package = package(&workspace, key)?;
        let reference = format!("{}@{}", key.0, key.1);
        references.insert(package.id.clone(), reference.clone());
        let mut component = Component::new(Classification::Library, &key.0, &key.1, None);
        component.bom_ref = Some(reference);
        component.scope = Some(match linked.contains(key) {
            true => Scope::Required,
            false => Scope::Excluded,
        });
        let license = package.license.as_deref();
        let license = license.with_context(|| format!("{} has no licence", key.0))?;
        component.licenses = Some(expression(license)?);
        let description = package.description.as_deref();
        component.description = description.map(|text| NormalizedString::new(text.trim()));
        if let Some(checksum) = checksums.get(key) {
            component.hashes = Some(hash(checksum));
            component.purl = Some(Purl::new("cargo", &key.0, &key.1)?);
        } else if !workspace.workspace_members.contains(&package.id) {
            bail!("{} has no checksum in Cargo.lock", key.0);
        }
        components.push(component);
    }
    components.push(std);

    let file = format!("{NAME}{}", product.suffix);
    let mut main = Component::new(Classification::Library, &file, &checkout.version, None);
    main.bom_ref = Some(file.clone());
    main.description = Some(NormalizedString::new(product.description));
    main.licenses = Some(expression(&checkout.license)?);
    main.hashes = Some(hash(&sha256(wasm)));
    let root = all.iter().find(|key| key.0 == product.package());
    let root = root.map(|(name, version)| format!("{name}@{version}"));
    let mut dependencies = vec![Dependency {
        dependency_ref: file,
        dependencies: root.into_iter().chain(["rust-std".into()]).collect(),
    }];
    dependencies.extend(edges(&workspace, &references));

    let bom = Bom {
        version: 1,
        serial_number: None,
        metadata: Some(Metadata {
            component: Some(main),
            ..Metadata::default()
        }),
        components: Some(Components(components)),
        services: None,
        external_references: None,
        dependencies: Some(Dependencies(dependencies)),
        compositions: None,
        properties: None,
        vulnerabilities: None,
        signature: None,
        annotations: None,
        formulation: None,
        spec_version: SpecVersion::V1_5,
    };
    let validated = bom.validate_version(SpecVersion::V1_5);
    if validated.has_errors() {
        bail!("the bill of materials is not valid: {validated:?}");
    }
    let mut json = Vec::new();
    bom.output_as_json(&mut json, SpecVersion::V1_5)?;
    json.push(b'\n');
    Ok(json)
}

/// Every package of a build of this one, along edges of these kinds.
fn tree(checkout: &Checkout, product: Product, edges: &str) -> Result<BTreeSet<Key>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(checkout.root())
        .args(["tree", "--locked", "--package", product.package()])
        .args(["--target", TARGET, "--edges", edges])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}"])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    }
    let keys = text.lines().map(|line| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next(), words.next());
        let version = version.and_then(|version| version.strip_prefix('v'));
        let key = name
            .zip(version)
            .context("cargo tree says something else")?;
        Ok((key.0.to_owned(), key.1.to_owned()))
    });
    keys.collect()
}

fn package<'a>(workspace: &'a Workspace, key: &Key) -> Result<&'a Package> {
    let mut found = workspace
        .packages
        .iter()
        .filter(|package| package.name.as_str() == key.0 && package.version.to_string() == key.1);
    found
        .next()
        .with_context(|| format!("cargo metadata does not know {} {}", key.0, key.1))
}

/// Who needs whom, among those that are there.
fn edges(workspace: &Workspace, there: &BTreeMap<PackageId, String>) -> Vec<Dependency> {
    let nodes = workspace.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let mut edges: Vec<Dependency> = nodes
        .filter_map(|node| {
            let of = there.get(&node.id)?;
            let is_built = |kind: &cargo_metadata::DepKindInfo| {
                kind.kind != cargo_metadata::DependencyKind::Development
            };
            let needs = node
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(is_built));
            let needs: BTreeSet<String> = needs
                .filter_map(|dep| there.get(&dep.pkg).cloned())
                .collect();
            Some(Dependency {
                dependency_ref: of.clone(),
                dependencies: needs.into_iter().collect(),
            })
        })
        .collect();
    edges.sort_by(|a, b| a.dependency_ref.cmp(&b.dependency_ref));
    edges
}

fn expression(license: &str) -> Result<Licenses> {
    let license = SpdxExpression::parse_lax(license.to_owned())?;
    Ok(Licenses(vec![LicenseChoice::Expression(license)]))
}

fn hash(hex: &str) -> Hashes {
    Hashes(vec![Hash {
        alg: HashAlgorithm::SHA_256,
        content: HashValue(hex.to_owned()),
    }])
}
