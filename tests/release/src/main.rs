//! The command behind `.ci/dist`: makes a release, and tests what a release promises.
//!
//! Publishes nothing. Exit code 1 where something does not hold.

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use qm2_release::archive::Files;
use qm2_release::checkout::{COMPONENT, Checkout};
use qm2_release::contract::{self, Contract, Version};
use qm2_release::image::{CONFIG, Config, LAYER, MANIFEST};
use qm2_release::registry::{REPOSITORY, Registry};
use qm2_release::{dist, freeze, image, reproduce, stamp};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Makes a release of QM2 and tests what it promises")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes all files of a release in target/dist
    Dist,
    /// Makes the release in two clones of the last commit and compares every file
    Check,
    /// Pushes the image of target/dist to a registry on this machine, pulls it, and compares
    Oci,
    /// Compares the contract with the one that is checked in, and with every release of its line
    Contract {
        /// Write what is checked in anew
        #[arg(long)]
        bless: bool,
    },
    /// Keeps contract, vectors and ledgers of this version in tests/releases
    Freeze,
}

fn main() -> Result<()> {
    let checkout = Checkout::here()?;
    match Arguments::parse().command {
        Command::Dist => {
            let files = dist::make(&checkout)?;
            print(&files);
            println!("in {}", dist::folder(&checkout).display());
        }
        Command::Check => print!("{}", reproduce::check(&checkout)?),
        Command::Oci => push_and_pull(&checkout)?,
        Command::Contract { bless } => compare_contract(&checkout, bless)?,
        Command::Freeze => {
            let document = document(&checkout)?;
            fs::write(kept_contract(&checkout), &document)?;
            let files = freeze::freeze(&checkout, &document)?;
            print(&files);
            println!("in tests/releases/{}", checkout.version);
        }
    }
    Ok(())
}

fn print(files: &Files) {
    for (name, bytes) in files {
        println!("{:>9}  {name}", bytes.len());
    }
}

// ---- the contract ----

fn kept_contract(checkout: &Checkout) -> PathBuf {
    checkout.path("tests/releases/contract.wit")
}

fn document(checkout: &Checkout) -> Result<String> {
    let contract = Contract::of_folder(&checkout.path("wit"))?;
    contract::document(&contract, &checkout.build(COMPONENT)?)
}

fn compare_contract(checkout: &Checkout, bless: bool) -> Result<()> {
    let document = document(checkout)?;
    let path = kept_contract(checkout);
    if bless {
        fs::write(&path, &document)?;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    if let Some(says) = contract::difference(&lines(&kept), &lines(&document)) {
        anyhow::bail!(
            "the contract is not the one in {}; if that is meant: .ci/dist --bless\n{says}",
            path.display()
        );
    }
    let present = Contract::of_text(&document)?;
    let mut releases = Vec::new();
    for entry in fs::read_dir(checkout.path("tests/releases"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            let version = Version::of_text(&name);
            let version = version.with_context(|| format!("{name} is no version"))?;
            releases.push((version, name));
        }
    }
    releases.sort();
    ensure!(!releases.is_empty(), "no release is kept");
    for (_, name) in releases {
        let released = checkout.text(&format!("tests/releases/{name}/contract.wit"))?;
        contract::keeps(&Contract::of_text(&released)?, &present)
            .with_context(|| format!("{} does not keep {name}", checkout.version))?;
        println!("{} keeps the contract of {name}", checkout.version);
    }
    Ok(())
}

// ---- the registry ----

fn push_and_pull(checkout: &Checkout) -> Result<()> {
    let image = dist::image(checkout)?;
    let file = format!("{}-{}.wasm", qm2_release::checkout::NAME, image.tag);
    let component = fs::read(dist::folder(checkout).join(&file))?;
    let registry = Registry::start()?;
    registry.push(&image)?;
    let (pulled, config) = registry.pull(&image.tag)?;

    // Looked at as JSON and not through the types that wrote it.
    let manifest: Value = serde_json::from_slice(&pulled.manifest)?;
    let layer = image::digest(&component);
    let same = |what: &str, got: &Value, wanted: Value| -> Result<()> {
        ensure!(*got == wanted, "{what}: {got} is not {wanted}");
        Ok(())
    };
    same("media type", &manifest["mediaType"], json!(MANIFEST))?;
    same("config", &manifest["config"]["mediaType"], json!(CONFIG))?;
    same(
        "layers",
        &manifest["layers"],
        json!([{
            "mediaType": LAYER,
            "digest": layer,
            "size": component.len(),
            "annotations": {"org.opencontainers.image.title": file},
        }]),
    )?;
    let annotations = stamp::annotations(&component)?;
    same("annotations", &manifest["annotations"], json!(annotations))?;
    for name in ["title", "version", "description", "licenses", "revision"] {
        let name = format!("org.opencontainers.image.{name}");
        ensure!(annotations.contains_key(&name), "{name} is missing");
    }
    let (imports, exports) = contract::names(&component)?;
    ensure!(
        !imports.is_empty() && !exports.is_empty(),
        "{imports:?} {exports:?}"
    );
    let wanted = Config {
        created: checkout.committed.clone(),
        architecture: "wasm".into(),
        os: "wasip2".into(),
        layer_digests: vec![layer.clone()],
        component: image::Component {
            exports,
            imports,
            target: format!("qm2:coordination/coordinator@{}", image.tag),
        },
    };
    ensure!(config == wanted, "{config:?} is not {wanted:?}");
    ensure!(pulled.digest() == image.digest(), "the digest changed");
    ensure!(pulled.blobs[&layer] == component, "the component changed");
    let tags = registry.tags()?.tags;
    ensure!(tags == [checkout.version.as_str()], "the tags are {tags:?}");
    println!(
        "{REPOSITORY}:{} pushed and pulled: {}, layer {layer}",
        image.tag,
        image.digest()
    );
    Ok(())
}
