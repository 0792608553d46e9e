//! An OCI registry on this machine, and what is said to it in plain HTTP: push an image, and take it out again.
//!
//! Runs Debian's `docker-registry` in a folder that is gone afterwards, on a free port of the loopback, and ends it. Speaks to no other
//! registry: for those the archive of the image goes through a tool that knows their ways to log in.

use crate::archive::Files;
use crate::image::{Config, Image, MANIFEST, digest};
use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::image::ImageManifest;
use serde::Deserialize;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use ureq::http::Response;
use ureq::{Agent, Body};

/// What is installed where it is missing, by Debian's name.
const PROGRAM: &str = "docker-registry";
/// Where the image is put: `qm2:coordination` under the rule of tools for WebAssembly.
pub const REPOSITORY: &str = "qm2/coordination";
/// Longest wait for the registry to listen.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A running registry; ended when it is dropped.
pub struct Registry {
    process: Child,
    address: String,
    agent: Agent,
    _folder: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The tags of a repository.
#[derive(Debug, Deserialize)]
pub struct Tags {
    /// Each.
    pub tags: Vec<String>,
}

impl Registry {
    /// Starts one without anything in it.
    ///
    /// # Errors
    /// The program is missing, or does not listen.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // Free until the registry takes it; whoever takes it meanwhile makes the registry end, which is seen.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?.to_string();
        drop(listener);
        let storage = folder.path().join("storage");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            storage.display()
        );
        let path = folder.path().join("config.yml");
        fs::write(&path, config)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let process = Command::new(PROGRAM)
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{PROGRAM} does not run; apt-get install {PROGRAM}"))?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Whatever proxy the caller uses does not know this machine's loopback.
            .proxy(None)
            .build()
            .into();
        let mut registry = Self {
            process,
            address,
            agent,
            _folder: folder,
        };
        let until = Instant::now() + STARTS_WITHIN;
        while registry.get("/v2/").is_err() {
            if let Some(status) = registry.process.try_wait()? {
                let log = fs::read_to_string(registry._folder.path().join("log"))?;
                bail!("{PROGRAM} ended with {status}: {log}");
            }
            ensure!(Instant::now() < until, "{PROGRAM} does not listen");
            sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> Result<Response<Body>> {
        let request = self.agent.get(self.url(path)).header("Accept", MANIFEST);
        Ok(request.call()?)
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let mut response = self.get(path)?;
        ensure!(response.status() == 200, "{path}: {}", response.status());
        Ok(response
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_vec()?)
    }

    /// Puts an image in under its tag.
    ///
    /// # Errors
    /// The registry does not take it.
    pub fn push(&self, image: &Image) -> Result<()> {
        for (digest, bytes) in &image.blobs {
            let begun = self
                .agent
                .post(self.url(&format!("/v2/{REPOSITORY}/blobs/uploads/")))
                .send_empty()?;
            ensure!(begun.status() == 202, "an upload: {}", begun.status());
            let location = begun.headers().get("Location").context("no place to put")?;
            let location = location.to_str()?;
            let location = match location.starts_with('/') {
                true => self.url(location),
                false => location.to_owned(),
            };
            let sign = if location.contains('?') { '&' } else { '?' };
            let put = self
                .agent
                .put(format!("{location}{sign}digest={digest}"))
                .content_type("application/octet-stream")
                .send(bytes)?;
            ensure!(put.status() == 201, "{digest}: {}", put.status());
        }
        let path = format!("/v2/{REPOSITORY}/manifests/{}", image.tag);
        let put = self
            .agent
            .put(self.url(&path))
            .content_type(MANIFEST)
            .send(&image.manifest)?;
        ensure!(put.status() == 201, "the manifest: {}", put.status());
        Ok(())
    }

    /// Takes an image out by its tag, and compares every digest.
    ///
    /// # Errors
    /// It is not there, or not what its digests say.
    pub fn pull(&self, tag: &str) -> Result<(Image, Config)> {
        let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
        let response = self.get(&path)?;
        let header = |name: &str| -> Result<String> {
            let value = response.headers().get(name);
            let value = value.with_context(|| format!("no {name}"))?;
            Ok(value.to_str()?.to_owned())
        };
        ensure!(header("Content-Type")? == MANIFEST, "another media type");
        let said = header("Docker-Content-Digest")?;
        let manifest = self.bytes(&path)?;
        ensure!(digest(&manifest) == said, "the manifest is not {said}");
        let parsed: ImageManifest = serde_json::from_slice(&manifest)?;
        let mut blobs = Files::new();
        for descriptor in parsed.layers().iter().chain([parsed.config()]) {
            let said = descriptor.digest().to_string();
            let bytes = self.bytes(&format!("/v2/{REPOSITORY}/blobs/{said}"))?;
            ensure!(digest(&bytes) == said, "a blob is not {said}");
            ensure!(bytes.len() as u64 == descriptor.size(), "{said}: its size");
            blobs.insert(said, bytes);
        }
        let config = &blobs[parsed.config().digest().as_ref() as &str];
        let config = serde_json::from_slice(config)?;
        let tag = tag.to_owned();
        let image = Image {
            tag,
            manifest,
            blobs,
        };
        Ok((image, config))
    }

    /// The tags that it has.
    ///
    /// # Errors
    /// It does not say.
    pub fn tags(&self) -> Result<Tags> {
        let bytes = self.bytes(&format!("/v2/{REPOSITORY}/tags/list"))?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}
