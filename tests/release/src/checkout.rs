//! The checkout that a release is made of: what it says of itself, and building its two WebAssembly files.
//!
//! Everything that could differ between two clones of one commit is left out: no times of this machine, no paths.

use crate::guest::{self, Artifact, Tools};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the files of a release are called.
pub const NAME: &str = "qm2-coordination";

/// One of the WebAssembly files of a release.
#[derive(Clone, Copy)]
pub struct Product {
    artifact: Artifact,
    /// What stands behind the version in the name of the file.
    pub suffix: &'static str,
    /// In a sentence, for those who find the file alone.
    pub description: &'static str,
}

/// The component.
pub const COMPONENT: Product = Product {
    artifact: guest::COMPONENT,
    suffix: "",
    description: "Coordination for agents: plans, idempotent dispatch, retries with a budget, claims with fencing tokens, \
        arbitration, human review, and a hash-chained ledger. Imports no WASI.",
};

/// The same engine as a plain core module.
pub const CORE_MODULE: Product = Product {
    artifact: guest::CORE_MODULE,
    suffix: "-core",
    description: "Coordination for agents, as a plain core module over JSON text: exports memory, alloc, call, free; imports \
        qm2.call.",
};

impl Product {
    /// The package it is built of.
    #[must_use]
    pub fn package(&self) -> &'static str {
        self.artifact.package
    }
}

/// A checkout of the repository.
pub struct Checkout {
    root: PathBuf,
    /// Its version.
    pub version: String,
    /// SPDX expression.
    pub license: String,
    /// Where the sources are, if the workspace says so.
    pub repository: Option<String>,
    /// Where more is told, if the workspace says so.
    pub homepage: Option<String>,
    /// The last commit, with `-dirty` behind it where files differ from it.
    pub revision: String,
    /// When that commit was made, in UTC.
    pub committed: String,
}

#[derive(Deserialize)]
struct Manifest {
    workspace: Workspace,
}

#[derive(Deserialize)]
struct Workspace {
    package: WorkspacePackage,
}

#[derive(Deserialize)]
struct WorkspacePackage {
    version: String,
    license: String,
    repository: Option<String>,
    homepage: Option<String>,
}

impl Checkout {
    /// The one that this program was built in.
    ///
    /// # Errors
    /// It is no clone, or git does not run.
    pub fn here() -> Result<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.ancestors().nth(2).context("no workspace")?;
        Self::at(root)
    }

    fn at(root: &Path) -> Result<Self> {
        let manifest: Manifest = toml::from_str(&read(&root.join("Cargo.toml"))?)?;
        let package = manifest.workspace.package;
        let mut revision = git(root, &["rev-parse", "HEAD"])?;
        if !git(root, &["status", "--porcelain"])?.is_empty() {
            revision += "-dirty";
        }
        let form = "--date=format-local:%Y-%m-%dT%H:%M:%SZ";
        let committed = git(root, &["show", "-s", "--format=%cd", form])?;
        Ok(Self {
            root: root.to_owned(),
            version: package.version,
            license: package.license,
            repository: package.repository,
            homepage: package.homepage,
            revision,
            committed,
        })
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder of it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    /// Files of a folder that git tracks, by their paths from the root, in order.
    ///
    /// # Errors
    /// git does not run.
    pub fn tracked(&self, folder: &str) -> Result<Vec<String>> {
        let names = git(&self.root, &["ls-files", "--", folder])?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The text of a file of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(&self, inside: &str) -> Result<String> {
        read(&self.path(inside))
    }

    /// Builds a WebAssembly file, as the host's build script does; in a target folder of its own.
    ///
    /// # Errors
    /// What was built cannot be read. Does not come back where it does not build.
    pub fn build(&self, product: Product) -> Result<Vec<u8>> {
        let tool = |name: &str, otherwise: &str| -> OsString {
            env::var_os(name).unwrap_or_else(|| otherwise.into())
        };
        let (cargo, rustc) = (tool("CARGO", "cargo"), tool("RUSTC", "rustc"));
        let tools = Tools {
            cargo: &cargo,
            rustc: &rustc,
        };
        let out = self.path("target/release-guest");
        let path = guest::build(&tools, &self.root, &out, product.artifact, &[]);
        fs::read(&path).with_context(|| format!("{} is not readable", path.display()))
    }
}

/// What rustc says about itself.
///
/// # Errors
/// It does not run.
pub fn rustc_version() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = said(Command::new(rustc).arg("--version"))?;
    let version = text.split_whitespace().nth(1);
    Ok(version.context("rustc tells no version")?.to_owned())
}

/// Runs git in a folder, away from the caller's settings of time and place.
///
/// # Errors
/// It fails.
pub fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    said(
        Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(arguments)
            .env("TZ", "UTC"),
    )
}

fn said(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{} does not run", command.get_program().display()))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}", error.trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} is not readable", path.display()))
}
